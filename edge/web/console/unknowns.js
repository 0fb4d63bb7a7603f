// Unknowns: strangers grouped by likeness, each given a name in one click.

import { call, offers } from "./api.js";
import { button, empty, face, field, fill, h, head, input, select, toast, when } from "./dom.js";
import { choosePerson } from "./choosing.js";
import { addTo, giveName } from "./naming.js";
import { places } from "./who.js";
import { plural } from "./words.js";

const PERIODS = [["1", "the last day"], ["7", "the last week"], ["30", "the last month"], ["", "all that is kept"]];

export function unknownsView(main, who) {
  const place = h("div");
  const tools = h("div");
  main.append(head("Unknowns", "Faces that nobody is known by, those alike together. A name makes a person of them."), tools, place);
  fill(tools, async () => {
    const known = await places();
    const period = select(PERIODS, "7");
    const camera = select([["", "all cameras"], ...known.sources.map((one) => [one.source_id, one.name])], "");
    const again = () => fill(place, () => showGroups(period.value, camera.value, known, who));
    period.addEventListener("change", again);
    camera.addEventListener("change", again);
    again();
    return h("div.live-head", {}, field("Seen in", period), field("Camera", camera), button("Look again", again));
  });
}

async function showGroups(days, sourceId, known, who) {
  if (!(await offers("/unknowns"))) return empty("Not on this box", "This version of edge does not group strangers.");
  const body = { limit: 100 };
  if (sourceId) body.source_id = sourceId;
  if (days) body.from = new Date(Date.now() - days * 86400e3).toISOString();
  const { groups } = await call("/unknowns", body);
  if (!groups.length) return empty("No strangers", "Everybody who was seen is known, or nobody was seen. Faces that are seen and not added stand here.");
  const often = [...groups].sort((a, b) => b.count - a.count);
  return h("ul.groups", {}, often.map((one) => groupCard(one, known, who)));
}

function groupCard(group, known, who) {
  const ids = group.sighting_ids ?? group.sightings.map((one) => one.id);
  const [best] = group.sightings;
  const title = h("h2", {}, group.count === 1 ? "Seen once" : `Seen ${group.count} times`);
  const where = group.source_ids.map(known.camera).join(", ") || "no camera named";
  const card = h(
    "li.card",
    {},
    title,
    h("p.words", {}, group.count === 1 ? when(group.last) : ["from ", when(group.first), " to ", when(group.last)], ` · ${where}`),
    h("div.strip", {}, group.sightings.slice(0, 12).map((one, number) => face(one.image_url, number ? "" : `A stranger, ${plural(group.count, "sighting")}`))),
    who.can("enrol") ? naming() : null,
  );
  return card;

  function naming() {
    const name = input({ maxLength: 200, autocomplete: "off" });
    const named = field("Name", name);
    const save = async () => {
      if (!name.value.trim()) return named.complain("Type a name first.");
      named.complain("");
      await giveName(ids, best.list_id, name.value.trim());
      gone();
    };
    const known_ = button("It is somebody known", () =>
      choosePerson("Who is it?", async (person) => {
        await addTo(ids, person);
        gone();
      }),
    );
    const go = button("Save", save, "primary");
    return h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          go.click();
        },
      },
      h("div.naming", {}, named, go),
      h("p.row", {}, known_),
    );
  }

  /** The next group gets the focus, so that many are named one after the other. */
  function gone() {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    const control = next?.querySelector("input");
    if (control) control.focus();
    else toast("All are named.");
  }
}
