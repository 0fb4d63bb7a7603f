// Adding somebody: a photo, what the box sees in it, and only then a record.

import { call } from "./api.js";
import { button, face, field, fill, h, head, input, select, toast } from "./dom.js";
import { scoreMeter } from "./live.js";
import { picturePicker } from "./picking.js";
import { forget, places } from "./who.js";
import { adviceFor, measured, measureName, nameOf, reasonInWords } from "./words.js";

export function enrolView(main) {
  const place = h("div");
  const found = h("div", { "aria-live": "polite" });
  let picker = null;
  let file = null;
  main.append(head("Add somebody", "First the photo: you see what the box sees in it before anything is kept."), place, found);
  fill(place, async () => {
    const { lists } = await places();
    const list = select(lists.map((one) => [one.id, one.name]), usual(lists));
    const look = () => file && fill(found, () => looked(file, list.value));
    list.addEventListener("change", look);
    picker = picturePicker((taken) => {
      file = taken;
      look();
    });
    return [h("div.live-head", {}, field("List", list)), picker.element, h("p")];
  });
  return () => picker?.stop();
}

/** The list that somebody new most likely belongs to: the main one, unless people are kept on others. */
function usual(lists) {
  const main = lists.find((one) => one.main) ?? lists[0];
  const fullest = [...lists].sort((a, b) => b.count - a.count)[0];
  return (main?.count ? main : fullest)?.id;
}

async function looked(file, listId) {
  const told = await previewOf(file, listId);
  const picture = await drawn(file, told.faces);
  if (!told.faces.length)
    return h("div.split", {}, picture, h("div.notice.warn", {}, h("p", {}, h("strong", {}, "No face found.")), h("p", {}, "Take a photo in which the face is larger, lit from the front, and not covered.")));
  const [first] = told.faces;
  return h(
    "div.split",
    {},
    h("div", {}, picture, told.faces.length > 1 ? h("p.hint", {}, `${told.faces.length} faces: the largest, with the thick frame, is the one that counts.`) : null),
    h("div.side", {}, verdict(first), first.nearest ? nearestCard(first, file) : null, saveCard(first, file, listId), measuresCard(first)),
  );
}

function previewOf(file, listId) {
  const form = new FormData();
  form.append("image", file);
  form.append("list_id", listId);
  return call("/person/preview", form);
}

/** The photo with a frame round every face. */
async function drawn(file, faces) {
  const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  const canvas = h("canvas", { width: picture.width, height: picture.height, role: "img", "aria-label": `The photo, with ${faces.length} ${faces.length === 1 ? "face" : "faces"} framed` });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const width = Math.max(2, Math.max(picture.width, picture.height) / 200);
  faces.forEach(({ bbox, reasons }, number) => {
    context.lineWidth = number ? width / 2 : width;
    for (const [grown, colour] of [[width, "#0b1520"], [0, reasons.length ? "#ffb74d" : "#5fe0a0"]]) {
      context.strokeStyle = colour;
      context.strokeRect(bbox.x - grown, bbox.y - grown, bbox.w + 2 * grown, bbox.h + 2 * grown);
    }
  });
  return h("div.looked", {}, canvas);
}

function verdict({ reasons }) {
  if (!reasons.length) return h("div.notice", {}, h("p", {}, h("strong", {}, "A good photo."), " It misses no limit."));
  return h(
    "div.notice.warn",
    {},
    h("p", {}, h("strong", {}, "This photo misses a limit"), ", so nobody new can be made of it:"),
    h("ul", {}, reasons.map((one) => h("li", {}, reasonInWords(one), ". ", adviceFor(one)))),
  );
}

function nearestCard({ nearest, threshold }, file) {
  const isThem = nearest.score >= threshold;
  return h(
    "section.card",
    { "aria-labelledby": "nearest" },
    h("h2", { id: "nearest" }, isThem ? "Known already" : "Most like"),
    h("div.nearest", {}, face(nearest.image_url, ""), h("div", {}, h("strong", {}, nameOf(nearest)), scoreMeter(nearest.score, threshold))),
    isThem ? h("p", {}, "A frame with this face is taken for this person.") : h("p.hint", {}, "Under the threshold: taken for somebody else."),
    button(`Add the photo to ${nameOf(nearest)}`, () => addPhoto(nearest, file), isThem ? "primary" : ""),
  );
}

async function addPhoto(person, file) {
  const form = new FormData();
  form.append("person_id", person.person_id);
  form.append("image", file);
  await call("/person/photo/add", form);
  forget(person.person_id);
  toast(`${nameOf(person)} is recognised by this photo too.`);
  const { list_id: listId } = person;
  location.hash = listId ? `#/person/${listId}/${person.person_id}` : "#/people";
}

function saveCard(seen, file, listId) {
  const isThem = seen.nearest && seen.nearest.score >= seen.threshold;
  const name = input({ maxLength: 200, required: true, autocomplete: "off" });
  const named = field("Name", name);
  const go = button("Save the person", save, isThem ? "" : "primary");
  return h(
    "form.card",
    {
      noValidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        go.click();
      },
    },
    h("h2", {}, isThem ? "Or save as somebody else" : "Save"),
    named,
    h("div.row", {}, go),
  );

  async function save() {
    if (!name.value.trim()) return named.complain("Type the name first.");
    named.complain("");
    const form = new FormData();
    form.append("image", file);
    form.append("list_id", listId);
    form.append("fields", name.value.trim());
    // whoever says that it is somebody else knows better than the score
    if (isThem) form.append("new_person_threshold", "1");
    const told = await call("/person/create", form);
    const [person] = told.persons ?? [];
    if (!person) throw new Error(whyNot(told));
    toast(`${name.value.trim()} is known from now on.`);
    location.hash = `#/person/${person.list_id}/${person.person_id}`;
  }
}

function whyNot(told) {
  const [match] = told.matches ?? [];
  if (match) return `This face is known already, as ${nameOf(match)}. Add the photo to that person.`;
  const [refused] = told.rejected ?? [];
  if (refused) return `Not saved. ${refused.reasons.map(reasonInWords).join("; ")}.`;
  return `Not saved: ${told.message}.`;
}

function measuresCard({ measures }) {
  const limit = ({ name, least, most }) => {
    if (least !== undefined && least !== null && most !== undefined && most !== null && least !== -most) return `${measured(name, least)} to ${measured(name, most)}`;
    if (most !== undefined && most !== null) return `at most ${measured(name, most)}`;
    return least !== undefined && least !== null ? `at least ${measured(name, least)}` : "";
  };
  return h(
    "section.card",
    { "aria-labelledby": "measures" },
    h("h2", { id: "measures" }, "What was measured"),
    h("ul.measures", {}, measures.map((one) => h("li", {}, h("span", {}, measureName(one.name), limit(one) ? h("small", {}, ` ${limit(one)}`) : null), h("span.value", {}, measured(one.name, one.value)), limit(one) ? h(`span.badge.${one.ok ? "good" : "bad"}`, {}, one.ok ? "ok" : "misses") : h("span")))),
  );
}
