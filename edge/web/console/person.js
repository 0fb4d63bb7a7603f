// One person: fields, photos, list; merged, split, erased.

import { call, offers } from "./api.js";
import { button, confirmDialog, face, field, fill, formDialog, h, head, input, select, toast, when } from "./dom.js";
import { choosePerson } from "./choosing.js";
import { sightingCard } from "./live.js";
import { picturePicker } from "./picking.js";
import { forget, places } from "./who.js";
import { nameOf, plural } from "./words.js";

export function personView(main, who, listId, personId) {
  const place = h("div");
  const title = head("Person", "");
  const mayChange = who.can("enrol");
  let picker = null;
  main.append(h("p", {}, h("a", { href: "#/people" }, "← People")), title, place);
  const again = () => {
    forget(personId);
    picker?.stop();
    return fill(place, show);
  };

  async function show() {
    const [person, known] = await Promise.all([call("/person", { list_id: listId, person_id: personId }), places()]);
    title.querySelector("h1").textContent = nameOf(person);
    document.title = `${nameOf(person)} · edge`;
    const photos = h("section", { "aria-labelledby": "photos" });
    const seen = h("section", { "aria-labelledby": "seen" });
    fill(photos, () => showPhotos(person, again, mayChange, (made) => (picker = made)));
    fill(seen, () => showSeen(person, known, who));
    return h(
      "div.split",
      {},
      h("div.side", {}, h("div.card", {}, face(person.image_url, `Portrait of ${nameOf(person)}`, "large")), facts(person, known), mayChange ? more(person, known, again) : null),
      h("div.side", {}, mayChange ? fieldsCard(person, again) : fieldsRead(person), photos, seen),
    );
  }

  again();
  return () => picker?.stop();
}

function facts(person, known) {
  return h("p.hint", {}, `On the list ${known.list(person.list_id)}. Added `, when(person.created), ", changed ", when(person.updated), ". Id ", h("code", {}, person.person_id));
}

function fieldsRead(person) {
  return h("section.card", {}, h("h2", {}, "Fields"), h("ul", {}, person.fields.map((one) => h("li", {}, one))));
}

/** The fields as rows: the first is the name. */
function fieldsCard(person, done) {
  const rows = h("div.fields");
  const addRow = (value = "") => {
    const number = rows.children.length;
    const control = input({ value, maxLength: 65535 });
    const label = number ? `Field ${number + 1}` : "Name";
    const row = h("div", {}, field(label, control), number ? button("Remove", () => row.remove()) : null);
    row.value = () => control.value.trim();
    rows.append(row);
    return control;
  };
  for (const one of person.fields.length ? person.fields : [""]) addRow(one);
  const save = button(
    "Save",
    async () => {
      const fields = [...rows.children].map((row) => row.value());
      while (fields.length && !fields.at(-1)) fields.pop();
      await call("/person/update", { list_id: person.list_id, person_id: person.person_id, fields });
      toast("Saved.");
      done();
    },
    "primary",
  );
  return h("form.card", { onsubmit: (event) => { event.preventDefault(); save.click(); } }, h("h2", {}, "Fields"), rows, h("div.actions", {}, save, button("Add a field", () => addRow().focus()), h("button.unseen", { type: "submit", tabIndex: -1 }, "Save")));
}

// --- photos ---

async function showPhotos(person, done, mayChange, onPicker) {
  const title = h("h2", { id: "photos" }, "Photos");
  if (!(await offers("/person/photos"))) return [title];
  const { photos } = await call("/person/photos", { person_id: person.person_id });
  const ticked = () => [...list.querySelectorAll("input:checked")].map((one) => one.value);
  const list = h("ul.photos", {}, photos.map((one, number) => photoItem(one, number, person, photos, mayChange, done)));
  const parts = [h("div.heading", {}, title, h("span.hint", {}, `Recognised by ${plural(photos.length, "photo")}`)), list];
  if (!mayChange) return parts;
  const picker = picturePicker((file) => addPhoto(person, file, done), "Drop another photo of this person here");
  onPicker(picker);
  if (photos.length > 1) parts.push(h("p.row", {}, button("Split the ticked photos off", () => splitOff(person, ticked(), photos, done))));
  return [...parts, h("p"), picker.element];
}

function photoItem(photo, number, person, photos, mayChange, done) {
  const text = `Photo ${number + 1}`;
  const remove = button("Delete", () =>
    confirmDialog("Delete the photo?", `${nameOf(person)} is not recognised by it any more. It is gone for good.`, {
      submit: "Delete the photo",
      act: async () => {
        await call("/person/photo/delete", { person_id: person.person_id, photo_id: photo.photo_id });
        toast("Deleted.");
        done();
      },
    }),
  );
  remove.setAttribute("aria-label", `Delete ${text.toLowerCase()}`);
  return h(
    "li",
    {},
    face(photo.image_url, text, "large"),
    mayChange && photos.length > 1 ? h("label.check", {}, h("input", { type: "checkbox", value: photo.photo_id }), text) : h("span", {}, text),
    h("span.hint", {}, photo.is_portrait ? "portrait · " : "", when(photo.created)),
    mayChange && photos.length > 1 ? remove : null,
  );
}

async function addPhoto(person, file, done, isSure = false) {
  const form = new FormData();
  form.append("person_id", person.person_id);
  form.append("list_id", person.list_id);
  form.append("image", file);
  if (isSure) form.append("force", "true");
  try {
    await call("/person/photo/add", form);
    toast("Added.");
    done();
  } catch (error) {
    if (error.status !== 400 || isSure) return toast(error.errors?.[0]?.reason ?? error.message, true);
    const why = (error.errors ?? []).map((one) => `${one.field} ${one.reason}`).join("; ") || error.message;
    confirmDialog("Add it all the same?", `The box would rather not: ${why}.`, { submit: "Add it", act: () => addPhoto(person, file, done, true) });
  }
}

function splitOff(person, photoIds, photos, done) {
  if (!photoIds.length || photoIds.length === photos.length) return toast("Tick the photos of the other person, and leave at least one.", true);
  const name = input({ maxLength: 200, required: true });
  const named = { fields: field("Name of the other person", name) };
  formDialog("Split", [h("p", {}, `${plural(photoIds.length, "photo")} will be somebody else's.`), named.fields], {
    fieldsByName: named,
    submit: "Make two persons of one",
    send: async (close) => {
      const { person: other } = await call("/person/split", { person_id: person.person_id, photo_ids: photoIds, fields: [name.value.trim()] });
      close();
      toast(`${nameOf(other)} is a person of their own.`);
      done();
    },
  });
}

// --- seen lately ---

async function showSeen(person, known, who) {
  const { sightings } = await call("/history", { person_id: person.person_id, limit: 12 });
  const title = h("h2", { id: "seen" }, "Seen lately");
  if (!sightings.length) return [title, h("p.hint", {}, "Not seen since the history begins.")];
  return [title, h("ul.sightings", {}, sightings.map((one) => sightingCard({ ...one, fields: person.fields }, known, who, false)))];
}

// --- move, merge, erase ---

function more(person, known, done) {
  const name = nameOf(person);
  return h(
    "section.card",
    {},
    h("h2", {}, "More"),
    h(
      "div.row",
      {},
      known.lists.length > 1 ? button("Move to another list", () => move(person, known)) : null,
      button("Merge with somebody", () => merge(person, done)),
      button("Erase", () =>
        confirmDialog(`Erase ${name}?`, "Record, photos, vectors and sightings go for good. Only backups keep them.", {
          submit: "Erase for good",
          act: async () => {
            await call("/person/delete", { list_id: person.list_id, person_id: person.person_id });
            forget(person.person_id);
            toast(`${name} is erased.`);
            location.hash = "#/people";
          },
        }),
      ),
    ),
  );
}

function move(person, known) {
  const others = known.lists.filter((one) => one.id !== person.list_id);
  const list = select(others.map((one) => [one.id, one.name]), others[0].id);
  const named = { new_list_id: field("List", list) };
  formDialog(`Move ${nameOf(person)}`, [named.new_list_id], {
    fieldsByName: named,
    submit: "Move",
    send: async (close) => {
      await call("/person/update", { list_id: person.list_id, person_id: person.person_id, new_list_id: list.value });
      forget(person.person_id);
      close();
      toast("Moved.");
      location.hash = `#/person/${list.value}/${person.person_id}`;
    },
  });
}

function merge(person, done) {
  choosePerson(
    `Who is ${nameOf(person)} too?`,
    (other) => {
      if (other.list_id !== person.list_id) return toast("Both must be on one list. Move one of them first.", true);
      confirmDialog(`Merge ${nameOf(other)} into ${nameOf(person)}?`, `${nameOf(person)} takes over the photos; ${nameOf(other)} is no person of their own any more.`, {
        submit: "Merge",
        act: async () => {
          await call("/person/fusion", { list_id: person.list_id, person_id: person.person_id, replace_person_id: other.person_id });
          forget(other.person_id);
          toast("Merged.");
          done();
        },
      });
    },
    { without: person.person_id },
  );
}
