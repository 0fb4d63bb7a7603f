// Giving a name to whoever was seen: somebody new, or somebody known already.

import { call } from "./api.js";
import { field, formDialog, h, input, toast } from "./dom.js";
import { choosePerson } from "./choosing.js";
import { nameOf } from "./words.js";

/** One click more than a name: sightings become a person. */
export async function giveName(sightingIds, listId, name) {
  const { person } = await call("/unknowns/name", { sighting_ids: sightingIds, list_id: listId, fields: [name] });
  toast(`${name} is known from now on.`);
  return person;
}

export async function addTo(sightingIds, person) {
  await call("/unknowns/name", { sighting_ids: sightingIds, person_id: person.person_id });
  toast(`Added to ${nameOf(person)}.`);
}

export function nameUnknown(sightingIds, listId, done = () => {}) {
  const name = input({ required: true, maxLength: 200 });
  const named = { fields: field("Name", name) };
  const known = h("button", {
    type: "button",
    onclick: () => {
      dialog.close();
      choosePerson("Who is it?", async (person) => {
        await addTo(sightingIds, person);
        done();
      });
    },
  }, "It is somebody known");
  const dialog = formDialog("Who is it?", [named.fields, known], {
    fieldsByName: named,
    submit: "Save the name",
    send: async (close) => {
      await giveName(sightingIds, listId, name.value.trim());
      close();
      done();
    },
  });
}
