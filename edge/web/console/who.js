// Persons by their id, read once: sightings name them and nothing more.

import { all, call } from "./api.js";

const persons = new Map();

/** The person's record, or null of one who is gone. */
export function personOf(listId, personId) {
  if (!persons.has(personId))
    persons.set(
      personId,
      call("/person", { list_id: listId, person_id: personId }).catch((error) => {
        if (error.isSignedOut) throw error;
        return null;
      }),
    );
  return persons.get(personId);
}

export function forget(personId) {
  persons.delete(personId);
}

/** Names of cameras and lists by their ids. */
export async function places() {
  const [sources, lists] = await Promise.all([all("/sources", "sources"), all("/person/lists", "lists")]);
  return {
    sources,
    lists,
    camera: (id) => (id ? (sources.find((one) => one.source_id === id)?.name ?? `camera ${id.slice(0, 8)}`) : "no camera named"),
    list: (id) => lists.find((one) => one.id === id)?.name ?? `list ${id.slice(0, 8)}`,
  };
}
