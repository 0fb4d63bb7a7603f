// Lists: who is told apart from whom, and what the threshold in force means.

import { all, call } from "./api.js";
import { button, confirmDialog, field, fill, formDialog, h, head, input, table, toast } from "./dom.js";
import { plural, policyInWords, score, thresholdInWords } from "./words.js";

export function listsView(main, who) {
  const place = h("div");
  const mayChange = who.can("admin") && !who.isBound;
  const again = () => fill(place, show);
  const lead = "Every person is on one list. A face is compared with a list, and is somebody on it if it scores at or above the list's threshold.";
  main.append(head("Lists", lead, mayChange ? button("New list", () => edit(null, again), "primary") : null), place);

  async function show() {
    const [lists, box] = await Promise.all([all("/person/lists", "lists"), call("/box")]);
    const columns = [
      ["Name", (one) => [h("strong", {}, one.name), one.main ? h("span.badge", {}, "main") : null]],
      ["Persons", (one) => h("a", { href: `#/people/${one.id}` }, plural(one.count, "person", "persons"))],
      ["Threshold", (one) => [h("strong.number", {}, score(one.threshold)), h("p.words", {}, thresholdInWords(one.threshold, one.count, box))]],
    ];
    if (mayChange)
      columns.push(["", (one) => h("div.row", {}, one.main ? null : [button("Rename", () => edit(one, again)), button("Erase", () => erase(one, again))])]);
    return [
      table("Lists", columns, lists),
      h("aside.card.note", {}, h("h2", {}, "What decides"), h("p", {}, policyInWords(box)), h("p", {}, "A camera may have a threshold of its own, under ", h("a", { href: "#/cameras" }, "Cameras"), ".")),
    ];
  }

  again();
}

function edit(list, done) {
  const name = input({ value: list?.name ?? "", maxLength: 100, required: true });
  const named = field("Name", name, "No two lists have the same name.");
  formDialog(list ? "Rename the list" : "New list", [named], {
    fieldsByName: { name: named },
    submit: list ? "Rename" : "Make the list",
    send: async (close) => {
      if (list) await call("/person/list/update", { list_id: list.id, name: name.value.trim() });
      else await call("/person/list/create", { name: name.value.trim() });
      close();
      toast(list ? "Renamed." : "List made.");
      done();
    },
  });
}

function erase(list, done) {
  const text = `“${list.name}” and its ${plural(list.count, "person", "persons")} will be erased for good: records, pictures, sightings. Only backups keep them.`;
  confirmDialog("Erase the list?", text, {
    submit: "Erase the list",
    act: async () => {
      await call("/person/list/delete", { list_id: list.id });
      toast("Erased.");
      done();
    },
  });
}
