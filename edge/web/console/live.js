// Live: sightings as they come, those that nobody knows first.

import { call, offers } from "./api.js";
import { button, empty, face, field, fill, h, head, select, toast, when } from "./dom.js";
import { nameUnknown } from "./naming.js";
import { nameIn, reasonInWords, score } from "./words.js";
import { personOf, places } from "./who.js";
import { whyButton } from "./why.js";

const SHOWN = 60; // of each column; older ones are in the history

export function liveView(main, who) {
  const place = h("div");
  let stream = null;
  let isLeft = false;
  main.append(head("Live", "Who the cameras see, as they see it."), place);

  async function show() {
    const live = new Live(await places(), who);
    await live.catchUp();
    if (!stream && !isLeft && (await offers("/events"))) stream = new Stream(live);
    return live.elements();
  }

  fill(place, show);
  return () => {
    isLeft = true;
    stream?.close();
  };
}

async function withFields(sighting) {
  const person = sighting.person_id ? await personOf(sighting.list_id, sighting.person_id) : null;
  return { ...sighting, fields: person?.fields ?? [] };
}

const AGAIN_MS = 5000; // what waits before a stream that was refused is asked for again

/** The box's events, asked for again where they end for another reason than a lost connection. */
class Stream {
  constructor(live) {
    this.live = live;
    this.open();
  }

  open() {
    this.source = new EventSource("/events");
    this.source.addEventListener("open", () => this.live.state("on", "Live"));
    this.source.addEventListener("sighting", (event) => this.live.take(JSON.parse(event.data), true));
    this.source.addEventListener("missed", () => this.live.catchUp());
    this.source.addEventListener("error", () => {
      this.live.state("off", "Not connected: trying again by itself");
      // a browser tries again by itself only where the connection was lost, not where it was refused
      if (this.source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.again(), AGAIN_MS);
    });
  }

  async again() {
    try {
      await this.live.catchUp();
      this.open();
    } catch (error) {
      if (!error.isSignedOut) this.timer = setTimeout(() => this.again(), AGAIN_MS);
    }
  }

  close() {
    clearTimeout(this.timer);
    this.source.close();
  }
}

/** The two columns and what stands above them. */
class Live {
  constructor(known, who) {
    this.known = known;
    this.who = who;
    this.paused = [];
    this.isPaused = false;
    this.seen = new Set();
    this.status = h("p.state", { role: "status" }, "Connecting…");
    this.camera = select([["", "all cameras"], ...known.sources.map((one) => [one.source_id, one.name])], "", { onchange: () => this.filter() });
    this.list = select([["", "all lists"], ...known.lists.map((one) => [one.id, one.name])], "", { onchange: () => this.filter() });
    this.pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Pause");
    this.unknown = column("Unknown", "Nobody unknown was seen.");
    this.known_ = column("Recognised", "Nobody who is known was seen yet.");
  }

  /** What was recorded before, or while nobody listened. */
  async catchUp() {
    const { sightings } = await call("/history", { limit: SHOWN });
    for (const one of (await Promise.all(sightings.map(withFields))).reverse()) this.take(one, false);
  }

  elements() {
    return [
      h("div.live-head", {}, field("Camera", this.camera), field("List", this.list), this.pause, this.status),
      h("div.columns", {}, this.unknown.section, this.known_.section),
    ];
  }

  state(kind, text) {
    this.status.className = `state ${kind}`;
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  toggle() {
    this.isPaused = !this.isPaused;
    this.pause.setAttribute("aria-pressed", String(this.isPaused));
    this.pause.textContent = this.isPaused ? "Go on" : "Pause";
    const waiting = this.paused;
    this.paused = [];
    if (!this.isPaused) for (const one of waiting) this.take(one, true);
  }

  take(sighting, isFresh) {
    if (this.seen.has(sighting.id)) return;
    if (this.isPaused) {
      this.paused.push(sighting);
      if (this.paused.length > SHOWN) this.paused.shift();
      this.pause.textContent = `Go on (${this.paused.length})`;
      return;
    }
    this.seen.add(sighting.id);
    if (this.seen.size > 10 * SHOWN) this.seen = new Set([...this.seen].slice(-5 * SHOWN));
    const isKnown = Boolean(sighting.person_id) && nameIn(sighting.fields) !== "";
    const { items } = isKnown ? this.known_ : this.unknown;
    const card = sightingCard(sighting, this.known, this.who, isFresh);
    card.hidden = !this.isWanted(sighting);
    items.prepend(card);
    while (items.children.length > SHOWN) items.lastChild.remove();
    this.count();
  }

  isWanted(sighting) {
    return [sighting.source_id ?? "", ""].includes(this.camera.value) && [sighting.list_id, ""].includes(this.list.value);
  }

  filter() {
    for (const { items } of [this.unknown, this.known_]) for (const card of items.children) card.hidden = !this.isWanted(card.sighting);
    this.count();
  }

  count() {
    for (const one of [this.unknown, this.known_]) {
      const shown = [...one.items.children].filter((card) => !card.hidden).length;
      one.counted.textContent = shown ? String(shown) : "";
      one.nobody.hidden = shown > 0;
    }
  }
}

function column(title, nobody) {
  const id = `column-${title.replaceAll(" ", "-").toLowerCase()}`;
  const items = h("ul.sightings", {});
  const counted = h("span.count");
  const none = empty(nobody, "Post a frame to /v1/person/create or /v1/action, and the faces in it stand here.");
  return { items, counted, nobody: none, section: h("section", { "aria-labelledby": id }, h("h2", { id }, title, counted), none, items) };
}

const VERDICTS = {
  match: ["Recognised", "good"],
  add: ["Added as somebody new", "new"],
  replace: ["Replaced the record", "new"],
  reject: ["Not added", "warn"],
};

/** A sighting: who, how sure, where, and if nobody, why not. */
export function sightingCard(sighting, known, who, isFresh) {
  const [verdict, kind] = VERDICTS[sighting.verdict];
  const name = nameIn(sighting.fields);
  const title = name || (sighting.verdict === "add" || sighting.person_id ? "Unnamed" : "Unknown");
  const isPerson = Boolean(sighting.person_id);
  const card = h(
    `li.sighting${isFresh ? ".fresh" : ""}`,
    {},
    face(sighting.image_url, name ? `Face of ${name}` : "Face of somebody unknown"),
    h(
      "div",
      {},
      h("div.top", {}, h("h3", {}, isPerson ? h("a", { href: `#/person/${sighting.list_id}/${sighting.person_id}` }, title) : title, h(`span.badge.${kind}`, {}, verdict)), when(sighting.time)),
      h("p.where", {}, `${known.camera(sighting.source_id)} · ${known.list(sighting.list_id)}`),
      scoreMeter(sighting.score, sighting.threshold),
      sighting.reasons.length ? h("ul.reasons", {}, sighting.reasons.map((one) => h("li", {}, reasonInWords(one)))) : null,
      h("div.row", {}, actions(sighting, name, who), whyButton(sighting, known, name)),
    ),
  );
  card.sighting = sighting;
  return card;
}

function actions(sighting, name, who) {
  if (!who.can("enrol")) return [];
  const made = [];
  if (!sighting.person_id) made.push(button("Give a name", () => nameUnknown([sighting.id], sighting.list_id)));
  if (sighting.verdict === "match")
    made.push(
      button(name ? `Not ${name}` : "Not this person", async () => {
        await call("/person/reject", { list_id: sighting.list_id, person_id: sighting.person_id, sighting_id: sighting.id });
        toast("Noted: this face matches them no longer.");
      }),
    );
  return made;
}

/** A score against its threshold, as a bar and in words. */
export function scoreMeter(value, threshold) {
  if (value === null || value === undefined) return h("p.score", {}, `Like nobody of the list. Threshold ${score(threshold)}`);
  const bar = h(`span.meter${value >= threshold ? ".reached" : ""}`, { "aria-hidden": "true" }, h("i"), h("b"));
  bar.style.setProperty("--score", value);
  bar.style.setProperty("--threshold", threshold);
  return h("p.score", {}, bar, h("span", {}, `score ${score(value)}, threshold ${score(threshold)}`));
}
