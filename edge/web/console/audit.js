// Audit: who enrolled, changed, erased or exported what, by ids alone.

import { all, call } from "./api.js";
import { button, empty, field, fill, h, head, infoDialog, input, select, table, when } from "./dom.js";
import { plural } from "./words.js";

const PAGE = 50;

const DEEDS = [
  ["", "everything"],
  ["/person/create", "enrolled"],
  ["/person/update", "changed a person"],
  ["/person/delete", "erased a person"],
  ["/person/merge", "merged persons"],
  ["/unknowns/name", "named a stranger"],
  ["/persons", "read faces in bulk"],
  ["/token/create", "made a token"],
  ["/token/delete", "revoked a token"],
  ["/session/begin", "signed in"],
];
const OUTCOMES = { done: ["done", "good"], added: ["added", "new"], replaced: ["replaced", "new"], refused: ["refused", "warn"], failed: ["failed", "bad"] };

export function auditView(main, who, about = "") {
  const place = h("div");
  const tools = h("div");
  const lead = "Who enrolled, changed, erased or exported, the latest first. By ids alone: an id of somebody who was erased says nothing of them.";
  main.append(head("Audit", lead), tools, place);
  fill(tools, async () => {
    const names = await namesById();
    const deed = select(DEEDS, "");
    const id = input({ value: about, maxLength: 36, spellcheck: false, placeholder: "a person's, list's, camera's, token's" });
    const named = field("About this id", id);
    const search = () => fill(place, () => showActs(deed.value, id.value.trim(), names));
    deed.addEventListener("change", search);
    search();
    return h("form.live-head", { role: "search", onsubmit: (event) => { event.preventDefault(); search(); } }, field("What", deed), named, h("button", { type: "submit" }, "Search"));
  });
}

async function namesById() {
  const [lists, sources] = await Promise.all([all("/person/lists", "lists"), all("/sources", "sources")]);
  return new Map([...lists.map((one) => [one.id, one.name]), ...sources.map((one) => [one.source_id, one.name])]);
}

async function showActs(action, id, names) {
  const page = (cursor) => call("/audit", { ...(action && { action }), ...(id && { id }), limit: PAGE, ...(cursor && { cursor }) });
  const first = await page(null);
  if (!first.acts.length) return empty("Nothing of that kind", "Nobody has done that, or it was longer ago than the log is kept.");
  const shown = h("div", {}, actsTable(first.acts, names));
  const more = h("p.more", { hidden: !first.cursor });
  const acts = [...first.acts];
  let { cursor } = first;
  more.append(
    button("Show more", async () => {
      const next = await page(cursor);
      cursor = next.cursor;
      acts.push(...next.acts);
      shown.replaceChildren(actsTable(acts, names));
      more.hidden = !cursor;
    }),
  );
  const lost = first.lost ? h("div.notice.warn", { role: "alert" }, h("p", {}, `${plural(first.lost, "entry", "entries")} could not be written here since the start, and stand in the service's own log.`)) : null;
  return [lost, shown, more].filter(Boolean);
}

function actsTable(acts, names) {
  return table(
    "Audit log",
    [
      ["When", (one) => when(one.time)],
      ["Who", (one) => [h("strong", {}, one.caller || "nobody signed in"), one.address ? h("p.words", {}, one.address) : null]],
      ["What", (one) => h("code", {}, one.action)],
      ["How it ended", (one) => outcome(one.outcome)],
      ["About", (one) => (one.ids.length ? button(subject(one.ids[0], names) + (one.ids.length > 1 ? ` and ${one.ids.length - 1} more` : ""), () => showIds(one, names)) : one.detail || "–")],
    ],
    acts,
  );
}

function outcome(said) {
  const [text, kind] = OUTCOMES[said] ?? [said, ""];
  return h(`span.badge${kind ? "." + kind : ""}`, {}, text);
}

function subject({ names: kind, id }, names) {
  return `${kind.replace(/_id$/, "").replaceAll("_", " ")} ${names.get(id) ?? id.slice(0, 8)}`;
}

function showIds(act, names) {
  infoDialog("What it was about", [h("ul", {}, act.ids.map((one) => h("li", {}, subject(one, names), " ", h("code", {}, one.id)))), act.detail ? h("p", {}, act.detail) : null].filter(Boolean), "Close");
}
