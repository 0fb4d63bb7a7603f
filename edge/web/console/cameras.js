// Cameras (the API's sources) and their groups: what they bring to the frames that name them.

import { all, call } from "./api.js";
import { button, choices, confirmDialog, empty, field, fill, formDialog, h, head, input, select, table, toast } from "./dom.js";
import { falsePositiveRate, measureName, score, strangers } from "./words.js";

const FEATURES = ["yaw", "pitch", "roll", "eye_distance", "eyes_open", "mouth_open", "sharpness", "brightness", "face_presence"];

export function camerasView(main, who) {
  const place = h("div");
  const mayChange = who.can("admin") && !who.isBound;
  const again = () => fill(place, show);
  let known = { lists: [], groups: [], box: null };
  main.append(
    head(
      "Cameras",
      "A camera that names itself with every frame (source_id) has limits and lists of its own. Groups say what is wanted when somebody is found.",
      mayChange ? [button("New camera", () => editCamera(null, known, again), "primary"), button("New group", () => editGroup(null, known, again))] : null,
    ),
    place,
  );

  async function show() {
    const [sources, groups, lists, box] = await Promise.all([
      all("/sources", "sources"),
      all("/source/groups", "groups"),
      all("/person/lists", "lists"),
      call("/box"),
    ]);
    known = { lists, groups, box };
    return [camerasTable(sources, known, mayChange, again), h("h2", {}, "Groups"), groupsTable(groups, known, mayChange, again)];
  }

  again();
}

function listName(id, lists) {
  return lists.find((one) => one.id === id)?.name ?? `list ${id.slice(0, 8)}`;
}

// --- cameras ---

function camerasTable(sources, known, mayChange, done) {
  if (!sources.length)
    return empty(
      "No camera yet",
      "Frames may be posted without one. A camera of its own gets its own limits, and its name stands beside every sighting.",
      mayChange ? button("New camera", () => editCamera(null, known, done), "primary") : null,
    );
  const columns = [
    ["Name", (one) => [h("strong", {}, one.name), h("p.words", {}, h("code", { title: "source_id" }, one.source_id))]],
    ["Group", (one) => known.groups.find((group) => group.group_id === one.group_id)?.name ?? "–"],
    ["Threshold", (one) => thresholdOf(one, known)],
    ["Limits of a new person", (one) => limitsOf(one, known.box)],
    ["Lists", (one) => listsOf(one, known.lists)],
  ];
  if (mayChange)
    columns.push(["", (one) => h("div.row", {}, button("Change", () => editCamera(one, known, done)), button("Delete", () => deleteCamera(one, done)))]);
  return table("Cameras", columns, sources);
}

function thresholdOf(source, { lists, box }) {
  const own = source.new_person_threshold;
  if (own === null) return "the list's";
  const searched = lists.filter((one) => (source.person_list_search.length ? source.person_list_search.includes(one.id) : one.main));
  const persons = searched.reduce((sum, one) => sum + one.count, 0);
  const words = persons ? `${strangers(falsePositiveRate(own, persons, box))} is taken for someone on ${searched.map((one) => one.name).join(", ")}` : "";
  return [h("strong.number", {}, score(own)), h("p.words", {}, words)];
}

function limitsOf(source, { limits }) {
  const shown = (own, usual, text) => h("li", {}, own === null ? text(usual) : h("strong", {}, text(own)));
  return h(
    "ul.plain",
    {},
    shown(source.new_person_square_min, limits.square_min, (value) => `${value} pixels or more`),
    shown(source.new_person_yaw_max, limits.yaw_max, (value) => `at most ${value}° sideways`),
    shown(source.new_person_pitch_max, limits.pitch_max, (value) => `at most ${value}° up or down`),
  );
}

function listsOf(source, lists) {
  const names = (ids) => ids.map((id) => listName(id, lists)).join(", ");
  return h(
    "ul.plain",
    {},
    h("li", {}, "searches ", source.person_list_search.length ? names(source.person_list_search) : "the main list"),
    source.person_list_add.length ? h("li", {}, "adds strangers to ", names(source.person_list_add)) : null,
  );
}

function deleteCamera(source, done) {
  confirmDialog("Delete the camera?", `“${source.name}” goes; what it has seen stays in the history, under its id.`, {
    submit: "Delete the camera",
    act: async () => {
      await call("/source/delete", { source_id: source.source_id });
      toast("Deleted.");
      done();
    },
  });
}

function editCamera(source, { lists, groups, box }, done) {
  const number = (value, props) => input({ type: "number", step: "any", value: value ?? "", required: value !== null && value !== undefined, ...props });
  const name = input({ value: source?.name ?? "", maxLength: 100, required: true });
  const group = select([["", "none"], ...groups.map((one) => [one.group_id, one.name])], source?.group_id);
  const numbers = {
    new_person_threshold: number(source?.new_person_threshold, { min: 0, max: 1 }),
    new_person_threshold_score: number(source?.new_person_threshold_score, { min: 0, max: 1 }),
    new_person_square_min: number(source?.new_person_square_min, { min: 0 }),
    new_person_yaw_max: number(source?.new_person_yaw_max, { min: 0, max: 90 }),
    new_person_pitch_max: number(source?.new_person_pitch_max, { min: 0, max: 90 }),
  };
  const search = choices("Lists that are searched", lists.map((one) => [one.id, one.name]), source?.person_list_search ?? [], "None ticked: the main list.");
  const add = select([["", "none: strangers are not added"], ...lists.map((one) => [one.id, one.name])], source?.person_list_add[0]);
  const features = featureControls(source?.feature_check ?? []);
  const usual = box.limits;
  const named = {
    name: field("Name", name),
    group_id: field("Group", group),
    new_person_threshold: field("Threshold", numbers.new_person_threshold, "0 to 1. Empty: the list's own, which is usually best."),
    new_person_threshold_score: field("Doubtful from", numbers.new_person_threshold_score, "A score from here up to the threshold is reported as doubtful, and nobody is added. Empty: nothing is doubtful."),
    new_person_square_min: field("Least size of a new face, pixels", numbers.new_person_square_min, `Empty: ${usual.square_min}.`),
    new_person_yaw_max: field("Most turned sideways, degrees", numbers.new_person_yaw_max, `Empty: ${usual.yaw_max}.`),
    new_person_pitch_max: field("Most turned up or down, degrees", numbers.new_person_pitch_max, `Empty: ${usual.pitch_max}.`),
    person_list_add: field("Strangers are added to", add),
  };
  const parts = [
    named.name,
    named.group_id,
    h("div.two", {}, named.new_person_threshold, named.new_person_threshold_score),
    h("div.three", {}, named.new_person_square_min, named.new_person_yaw_max, named.new_person_pitch_max),
    search,
    named.person_list_add,
    features,
    source ? h("p.hint", {}, "A limit that was set can be changed, but not emptied again.") : null,
  ];
  formDialog(source ? "Change the camera" : "New camera", parts, {
    fieldsByName: named,
    submit: source ? "Save" : "Make the camera",
    send: async (close) => {
      const body = { name: name.value.trim(), person_list_search: search.chosen(), person_list_add: add.value ? [add.value] : [] };
      if (group.value) body.group_id = group.value;
      for (const [key, control] of Object.entries(numbers)) if (control.value !== "") body[key] = Number(control.value);
      const checks = features.chosen();
      if (checks.length) body.feature_check = checks;
      if (source) await call("/source/update", { ...body, source_id: source.source_id });
      else await call("/source/create", body);
      close();
      toast(source ? "Saved." : "Camera made. Its id goes into source_id of every frame.");
      done();
    },
  });
}

/** Features to measure for every face, each with bounds if wanted. */
function featureControls(chosen) {
  const rows = FEATURES.map((name) => {
    const had = chosen.find((one) => one.name === name);
    const text = measureName(name);
    const tick = h("input", { type: "checkbox", checked: Boolean(had), "aria-label": `Measure: ${text}` });
    const bound = (value, word) => input({ type: "number", step: "any", value: value ?? "", "aria-label": `${text}: ${word}`, placeholder: word });
    const least = bound(had?.min, "at least");
    const most = bound(had?.max, "at most");
    for (const one of [least, most]) one.addEventListener("input", () => (tick.checked ||= one.value !== ""));
    return { name, tick, least, most, row: h("div.feature", {}, tick, h("span", { "aria-hidden": "true" }, text), least, most) };
  });
  const made = h("details", { open: chosen.length > 0 }, h("summary", {}, "Features to measure, and their bounds"), h("p.hint", {}, "A face out of bounds is not added."), rows.map((one) => one.row));
  made.chosen = () =>
    rows
      .filter((one) => one.tick.checked)
      .map((one) => ({
        name: one.name,
        ...(one.least.value !== "" && { min: Number(one.least.value) }),
        ...(one.most.value !== "" && { max: Number(one.most.value) }),
      }));
  return made;
}

// --- groups ---

function groupsTable(groups, known, mayChange, done) {
  if (!groups.length)
    return empty("No group yet", "A group of cameras says what is wanted when somebody of a list is found before one of them, or is not.");
  const columns = [
    ["Name", (one) => h("strong", {}, one.name)],
    [
      "Alerts",
      (one) =>
        one.person_list_search.length
          ? h("ul.plain", {}, one.person_list_search.map((alert) => h("li", {}, alertInWords(alert, known.lists))))
          : "none",
    ],
  ];
  if (mayChange)
    columns.push(["", (one) => h("div.row", {}, button("Change", () => editGroup(one, known, done)), button("Delete", () => deleteGroup(one, done)))]);
  return table("Groups", columns, groups);
}

function alertInWords(alert, lists) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const wanted = [alert.on_found && `found → ${text(alert.on_found)}`, alert.on_failed && `not found → ${text(alert.on_failed)}`];
  return `${listName(alert.id, lists)}: ${wanted.filter(Boolean).join("; ") || "looked up, nothing wanted"}`;
}

function deleteGroup(group, done) {
  confirmDialog("Delete the group?", `“${group.name}” goes; its cameras stay, without a group.`, {
    submit: "Delete the group",
    act: async () => {
      await call("/source/group/delete", { group_id: group.group_id });
      toast("Deleted.");
      done();
    },
  });
}

function editGroup(group, { lists }, done) {
  const name = input({ value: group?.name ?? "", maxLength: 100, required: true });
  const named = { name: field("Name", name) };
  const rows = h("div.alerts");
  const text = (value) => (value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));
  const addRow = (alert = {}) => {
    const list = select([["", "choose a list"], ...lists.map((one) => [one.id, one.name])], alert.id, { required: true });
    const found = input({ value: text(alert.on_found), maxLength: 2048 });
    const failed = input({ value: text(alert.on_failed), maxLength: 2048 });
    const row = h(
      "div.alert",
      {},
      field("List", list),
      field("When found", found, "A URL, a topic, or an object in JSON."),
      field("When not found", failed),
      button("Remove", () => row.remove()),
    );
    row.read = () => ({ id: list.value, ...wanted("on_found", found.value), ...wanted("on_failed", failed.value) });
    rows.append(row);
  };
  for (const alert of group?.person_list_search ?? []) addRow(alert);
  const parts = [named.name, h("fieldset", {}, h("legend", {}, "Alerts"), rows, button("Add an alert", () => addRow()))];
  formDialog(group ? "Change the group" : "New group", parts, {
    fieldsByName: named,
    submit: group ? "Save" : "Make the group",
    send: async (close) => {
      const body = { name: name.value.trim(), person_list_search: [...rows.children].map((row) => row.read()) };
      if (group) await call("/source/group/update", { ...body, group_id: group.group_id });
      else await call("/source/group/create", body);
      close();
      toast(group ? "Saved." : "Group made.");
      done();
    },
  });
}

function wanted(key, value) {
  const said = value.trim();
  if (!said) return {};
  if (!said.startsWith("{")) return { [key]: said };
  try {
    return { [key]: JSON.parse(said) };
  } catch {
    throw new Error(`“${said.slice(0, 40)}” begins like an object but is no JSON.`);
  }
}
