// Why a face was recognised or not: a sighting's own numbers, one after the other, in words.

import { button, h, infoDialog } from "./dom.js";
import { adviceFor, isUnsure, reasonInWords, score } from "./words.js";

/** A button that explains the sighting. */
export function whyButton(sighting, known, name) {
  const title = sighting.verdict === "match" ? "Why was this face recognised?" : "Why was this face not recognised?";
  return button("Why?", () => infoDialog(title, [h("ol.why", {}, steps(sighting, known, name).map((one) => h("li", {}, one)))], "Close"));
}

function steps(sighting, known, name) {
  const unsure = sighting.reasons.filter(isUnsure);
  const missed = sighting.reasons.filter((one) => !isUnsure(one));
  return [
    `It was compared with the list ${known.list(sighting.list_id)}. Whoever is on a list that was not searched is not found: which are searched is set under Cameras, or said in the request.`,
    likeness(sighting),
    ...unsure.map((one) => doubt(one, sighting)),
    outcome(sighting, name, unsure.length, missed.length),
    ...missed.map(withAdvice),
  ];
}

function doubt(reason, sighting) {
  if (sighting.score < sighting.threshold) return withAdvice(reason);
  return `Two persons of the list fit it: the better one is ahead by ${reason.value.toFixed(2)}, and ${reason.limit.toFixed(2)} is needed. If both are one person, merge them; if they are two who look alike, add better photos of each.`;
}

function withAdvice(reason) {
  return `${reasonInWords(reason)}. ${adviceFor(reason)}`.trim();
}

function likeness({ score: value, threshold }) {
  if (value === null || value === undefined)
    return `Nobody on it reached the threshold, ${score(threshold)}. If the person is on it, add a photo of how they look here; Search by photo, under People, shows who is nearest, with the score.`;
  const told = `The most alike person scored ${score(value)}; the threshold is ${score(threshold)}.`;
  return value >= threshold ? told : `${told} It is ${score(threshold - value)} short: strangers reach ${score(value)} ${timesAsOften(threshold - value)} as often.`;
}

/** Every 0.1 of the score is a factor of ten. */
function timesAsOften(short) {
  const times = 10 ** (10 * short);
  return `${times < 10 ? times.toFixed(1) : Math.round(times).toLocaleString("en")} times`;
}

function outcome({ verdict, person_id }, name, isUncertain, isMissed) {
  if (verdict === "match") return `So it was taken for ${name || "that person"}. If it is somebody else, say so with the button beside the picture.`;
  if (verdict === "add") return "It missed no limit, so it became a new person. Name them on their page.";
  if (verdict === "replace") return "It replaced the person's record, as was asked for.";
  if (person_id) return "It was said later whose it is.";
  if (isMissed) return "It is not good enough to become a new person, for what follows. Somebody known is recognised all the same.";
  if (isUncertain) return "As it may be somebody known, it did not become a new person.";
  return "It did not become a new person: the camera or the request only compares. Name it with the button beside the picture, or under Unknowns.";
}
