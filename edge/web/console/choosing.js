// Finding persons: by what is written of them, and by a photo.

import { all, call, offers } from "./api.js";
import { explained, face, field, h, infoDialog, input, toast } from "./dom.js";
import { nameOf } from "./words.js";

/** Persons whose fields contain the text, of one list or of all. */
export async function findByText(text, listId = null) {
  if (await offers("/person/find")) {
    const found = [];
    let cursor = "";
    do {
      const page = await call("/person/find", { text, ...(listId && { list_id: listId }), limit: 100, cursor });
      found.push(...page.persons);
      cursor = page.cursor;
    } while (cursor && found.length < 100);
    return found;
  }
  const lists = listId ? [{ id: listId }] : await all("/person/lists", "lists");
  const persons = (await Promise.all(lists.map((one) => all("/persons", "persons", { list_id: one.id })))).flat();
  return persons.filter((one) => one.fields.some((said) => said.toLowerCase().includes(text.toLowerCase())));
}

/** Persons by likeness to the largest face of a photo, the nearest first, each with a score. */
export async function findByPhoto(file, listIds) {
  const form = new FormData();
  form.append("image", file);
  form.append("embedding_only", "true");
  const seen = await call("/person/create", form);
  if (!seen.faces?.length) throw new Error("No face was found in this photo. Take one in which a face is larger and faces the camera.");
  const { results } = await call("/vector/search", {
    embeddings: [seen.faces[0].embedding],
    list_ids: listIds,
    threshold: 0,
    person_data: true,
    results: "all",
  });
  return results[0].matches.slice(0, 24).map((one) => ({ ...one.person, likeness: one.score }));
}

/** A dialog to choose one person in; `chosen` is called with their record. */
export function choosePerson(title, chosen, { without = null } = {}) {
  const text = input({ type: "search" });
  const results = h("ul.results", {});
  const said = h("p.hint", { role: "status" }, "Type a part of the name.");
  let asked = 0;
  let timer;
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 250);
  });
  const dialog = infoDialog(title, [field("Name contains", text), said, results], "Cancel");
  text.focus();

  async function look() {
    const number = ++asked;
    if (!text.value.trim()) return results.replaceChildren();
    try {
      const found = (await findByText(text.value.trim())).filter((one) => one.person_id !== without).slice(0, 20);
      if (number !== asked) return;
      said.textContent = found.length ? "" : "Nobody is written like that.";
      results.replaceChildren(...found.map(choice));
    } catch (error) {
      said.textContent = explained(error);
    }
  }

  function choice(person) {
    const pick = async () => {
      dialog.close();
      try {
        await chosen(person);
      } catch (error) {
        toast(explained(error), true);
      }
    };
    return h("li", {}, h("button", { type: "button", onclick: pick }, face(person.image_url, "", "small"), h("span.text", {}, h("strong", {}, nameOf(person)))));
  }
}
