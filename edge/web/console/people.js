// People: who is on the lists, found by name or by photo.

import { call } from "./api.js";
import { button, empty, face, field, fill, h, head, input, select } from "./dom.js";
import { findByPhoto, findByText } from "./choosing.js";
import { places } from "./who.js";
import { nameOf, score } from "./words.js";

export function peopleView(main, who, listId = "") {
  const place = h("div");
  const tools = h("div");
  main.append(head("People", "Everybody who can be recognised.", who.can("enrol") ? h("a.button.primary", { href: "#/enrol" }, "Add somebody") : null), tools, place);
  fill(tools, async () => {
    const known = await places();
    const text = input({ type: "search", placeholder: "a part of the name" });
    const list = select([["", "all lists"], ...known.lists.map((one) => [one.id, one.name])], listId);
    const nameless = h("input", { type: "checkbox", onchange: () => search() });
    const photo = h("input.unseen", { type: "file", accept: "image/*", "aria-label": "Search by a photo" });
    const search = () => fill(place, () => (nameless.checked ? withoutName(list.value, known) : byText(text.value.trim(), list.value)));
    text.addEventListener("search", search);
    list.addEventListener("change", search);
    photo.addEventListener("change", () => {
      const [file] = photo.files;
      photo.value = "";
      if (file) fill(place, () => byPhoto(file, list.value));
    });

    async function byText(said, inList) {
      const found = said ? await findByText(said, inList) : null;
      if (found) return found.length ? [counted(found), cards(found, known)] : nobody(said);
      const shown = inList ? known.lists.filter((one) => one.id === inList) : known.lists;
      return (await Promise.all(shown.map((one) => listOf(one, known)))).flat().concat(shown.every((one) => !one.count) ? [welcome(who)] : []);
    }

    async function byPhoto(file, inList) {
      const found = await findByPhoto(file, inList ? [inList] : known.lists.map((one) => one.id));
      const note = h("p", { role: "status" }, found.length ? "By likeness, the most alike first. From the list's threshold on a face is taken for the person." : "Nobody is on the list yet.");
      return [note, button("Show everybody again", search), h("p"), cards(found, known)];
    }

    search();
    return h(
      "form.search",
      { role: "search", onsubmit: (event) => { event.preventDefault(); search(); } },
      field("Name", text),
      field("List", list),
      h("label.check", {}, nameless, h("span", {}, "Without a name")),
      h("div.row", {}, h("button", { type: "submit" }, "Search"), h("button", { type: "button", onclick: () => photo.click() }, "Search by photo"), h("span", { hidden: true }, photo)),
    );
  });
}

/** Those of whom nothing is written, page by page: as cameras add them. */
async function withoutName(listId, known) {
  const page = (cursor) => call("/person/find", { text: "", ...(listId && { list_id: listId }), limit: 60, cursor });
  const first = await page("");
  if (!first.persons.length && !first.cursor) return empty("Everybody has a name", "Nobody was added by a camera, or all of them have a name by now.");
  const items = cards(first.persons, known);
  return [h("p.hint", { role: "status" }, "Open one to give them a name, or to merge them with somebody who is known."), items, moreOf(first.cursor, page, items, known)];
}

/** A list's persons, page by page, under its name. */
async function listOf(list, known) {
  if (!list.count) return [];
  const page = (cursor) => call("/persons", { list_id: list.id, limit: 60, cursor });
  const first = await page("");
  const items = cards(first.persons, known);
  return [h("h2", {}, list.name, h("span.count", {}, String(list.count))), items, moreOf(first.cursor, page, items, known)];
}

/** A button that adds the next page to the items, as long as there is one. */
function moreOf(cursor, page, items, known) {
  const more = h("p.more", { hidden: !cursor });
  more.append(
    button("Show more", async () => {
      const next = await page(cursor);
      cursor = next.cursor;
      items.append(...next.persons.map((one) => personCard(one, known)));
      more.hidden = !cursor;
    }),
  );
  return more;
}

function counted(found) {
  return h("p.hint", { role: "status" }, found.length === 1 ? "One person." : `${found.length} persons.`);
}

function nobody(said) {
  return empty("Nobody found", `No field of anybody contains “${said}”. Try a shorter part of the name, or search by photo.`);
}

function welcome(who) {
  return empty("Nobody yet", "Add somebody with a photo, or post frames and name who is seen under Unknowns.", who.can("enrol") ? h("a.button.primary", { href: "#/enrol" }, "Add somebody") : null);
}

function cards(persons, known) {
  return h("ul.people", {}, persons.map((one) => personCard(one, known)));
}

function personCard(person, known) {
  const note = person.likeness === undefined ? known.list(person.list_id) : `score ${score(person.likeness)}`;
  return h(
    "li",
    {},
    h(
      "a.person",
      { href: `#/person/${person.list_id}/${person.person_id}` },
      face(person.image_url, "", "large"),
      h("span.text", {}, h("strong", {}, nameOf(person)), " ", h("small", {}, note)),
    ),
  );
}
