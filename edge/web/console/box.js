// Box: what runs here, how it does, and its backups.

import { call, get, getText, offers } from "./api.js";
import { button, empty, fill, h, head, infoDialog, table, toast, when } from "./dom.js";
import { stages } from "./metrics.js";
import { plural, policyInWords } from "./words.js";

const DISK = {
  ok: ["ok", "There is room."],
  low: ["warn", "Getting full: the oldest pictures of sightings make room."],
  full: ["bad", "Full: nobody is added until there is room. Erase what is not needed."],
};

export function boxView(main, who) {
  main.append(head("Box", "What runs here, and how it does."));
  const health = h("section", { "aria-label": "State" });
  const numbers = h("section", { "aria-labelledby": "box-speed" });
  const kept = h("section", { "aria-labelledby": "box-backups" });
  const licences = h("section", { "aria-labelledby": "box-licences" });
  main.append(health, numbers);
  fill(health, () => showHealth(who));
  fill(numbers, showNumbers);
  if (who.can("admin") && !who.isBound) {
    main.append(kept);
    fill(kept, () => showBackups(kept));
  }
  if (who.can("read")) {
    main.append(licences);
    fill(licences, showLicences);
  }
}

async function showHealth(who) {
  const [health, box] = await Promise.all([get("/health"), who.can("read") ? call("/box") : null]);
  const [kind, text] = DISK[health.disk.state] ?? ["warn", health.disk.state];
  return [
    health.restored_from ? restoredNotice(health.restored_from) : null,
    h(
      "div.tiles",
      {},
      tile("Persons", health.persons.toLocaleString("en"), `on ${plural(health.lists, "list")}, known by ${plural(health.templates, "face")}`),
      tile("Disk", `${gigabytes(health.disk.free_megabytes)} free`, text, kind),
      tile("Version", health.version, `pack ${box?.pack.name ?? health.pack}`),
      box ? tile("Threshold", box.threshold === null ? "automatic" : box.threshold.toFixed(2), policyInWords(box)) : null,
    ),
    health.fleet ? fleet(health.fleet) : null,
    troubles(health),
  ].filter(Boolean);
}

function tile(name, value, note, kind = "") {
  return h(`div.tile${kind ? "." + kind : ""}`, {}, h("p.name", {}, name), h("p.value", {}, value), h("p.words", {}, note));
}

function gigabytes(megabytes) {
  return megabytes >= 10240 ? `${Math.round(megabytes / 1024)} GB` : megabytes >= 1024 ? `${(megabytes / 1024).toFixed(1)} GB` : `${megabytes} MB`;
}

function restoredNotice(moment) {
  return h(
    "div.notice.warn",
    { role: "alert" },
    h("p", {}, h("strong", {}, "The database was found broken and replaced by a backup of "), new Date(moment).toLocaleString(), "."),
    h("p", {}, "Whoever was added or erased after that is not. Once you have dealt with it, say so on the box: ", h("code", {}, "edge restore --acknowledge")),
  );
}

function fleet(told) {
  const state = told.agrees === false ? ["bad", "The boxes hold different things; those that most differ from are being mended."]
    : !told.connected ? ["warn", "The others cannot be reached: this box goes on alone, and tells them later."]
    : told.position === null ? ["warn", "Joined; it waits for another box to take over from."]
    : ["ok", told.agrees ? "All boxes hold the same." : "Connected."];
  return h(
    "section",
    { "aria-labelledby": "box-fleet" },
    h("h2", { id: "box-fleet" }, "Fleet"),
    h(
      "div.tiles",
      {},
      tile(told.box, told.connected ? "connected" : "alone", state[1], state[0]),
      tile("To be told", told.outbox.toLocaleString("en"), "changes of this box that the others have not heard of"),
      tile("Holds", told.digest ? told.digest.slice(0, 8) : "–", told.digest ? "the same letters on every box that holds the same" : "not computed yet"),
    ),
    told.peers.length
      ? table("Other boxes", [["Box", (one) => one.box], ["Heard", (one) => (one.silent ? `silent for ${Math.round(one.heard_seconds_ago)} s` : `${Math.round(one.heard_seconds_ago)} s ago`)], ["Behind", (one) => (one.behind === null ? "not seeded" : one.behind.toLocaleString("en")), "right"], ["To be told", (one) => one.outbox.toLocaleString("en"), "right"], ["Models", (one) => (one.same_pack ? "the same" : one.pack)]], told.peers)
      : empty("No other box yet", "Run edge fleet join with the fleet's code on another box."),
  );
}

function troubles(health) {
  const found = [
    health.templates_set_aside && `${plural(health.templates_set_aside, "face")} could not be read and is set aside. Add new photos of whoever is not recognised any more.`,
    health.templates_other_packs && `${plural(health.templates_other_packs, "face")} is of another model pack and is not compared. On the box: edge reembed`,
    health.pictures_missing && `${plural(health.pictures_missing, "picture")} is missing on the disk.`,
  ].filter(Boolean);
  return found.length ? h("div.notice.warn", { role: "alert" }, h("ul", {}, found.map((one) => h("li", {}, one)))) : null;
}

// --- speed ---

async function showNumbers() {
  const title = h("h2", { id: "box-speed" }, "Speed");
  const found = (await offers("/metrics")) ? stages(await getText("/metrics")) : null;
  if (!found?.rows.length)
    return [title, empty("No numbers yet", "They come with the first frames. On the box, edge bench measures each stage in half a minute.")];
  return [
    title,
    h("div.tiles", {}, tile("A frame takes", `${found.frameMs.toFixed(0)} ms`, `mean of ${plural(found.frames, "frame")} since the start`), tile("Frames a second", found.perSecond.toFixed(1), "that one worker could do, one after the other")),
    table("Milliseconds a stage", [["Stage", (one) => one.name], ["Milliseconds", (one) => one.ms.toFixed(1), "right"], ["Times", (one) => one.count.toLocaleString("en"), "right"]], found.rows),
  ];
}

// --- backups ---

async function showBackups(place) {
  const { backups } = await call("/backups");
  const now = button("Back up now", async () => {
    toast("Backing up…");
    const { backup } = await call("/backup/create");
    toast(`Made and read back: ${backup.name}, ${backup.megabytes} MB.`);
    await fill(place, () => showBackups(place));
  });
  return [
    h("div.heading", {}, h("h2", { id: "box-backups" }, "Backups"), now),
    backups.length
      ? table("Files", [["File", (one) => h("code", {}, one.name)], ["Made", (one) => when(one.made)], ["Size", (one) => `${one.megabytes} MB`, "right"]], backups)
      : empty("No backup yet", "A backup holds everybody: records, faces, keys. Make one now, or let edge-backup.timer make one every night."),
    h("p.hint", {}, "They lie in backups in the data folder, on this box's own disk: copy them to another one. To put one back, stop the service and run ", h("code", {}, "edge restore FILE"), "."),
  ];
}

// --- licences ---

async function showLicences() {
  const { licences, pack } = await call("/box");
  return [
    h("h2", { id: "box-licences" }, "Models and licences"),
    h("p", {}, pack.description),
    h("div.row", {}, licences.map((one) => button(`Notice of the pack “${one.name}”`, () => infoDialog(`Notice of “${one.name}”`, [h("pre.notice-text", { tabIndex: 0 }, one.text)], "Close")))),
    h("p.hint", {}, "edge itself is under the Apache License 2.0."),
  ];
}
