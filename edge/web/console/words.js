// Numbers in words.

/** The share of strangers who are taken for somebody on a list of that many, at that threshold. */
export function falsePositiveRate(threshold, persons, box) {
  const falseMatchRate = 10 ** ((box.score_at_fmr_1 - threshold) / box.score_per_decade);
  return 1 - (1 - Math.min(1, falseMatchRate)) ** persons;
}

/** "about one stranger in 100", to two digits. */
export function strangers(rate) {
  if (rate <= 0) return "no stranger";
  const one = 1 / rate;
  if (one < 1.5) return "nearly every stranger";
  const digits = Math.floor(Math.log10(one));
  const rounded = digits < 2 ? Math.round(one) : Math.round(one / 10 ** (digits - 1)) * 10 ** (digits - 1);
  return `about one stranger in ${rounded.toLocaleString("en")}`;
}

export function thresholdInWords(threshold, persons, box) {
  if (!persons) return "Nobody is on this list yet, so nobody can be taken for someone on it.";
  const who = strangers(falsePositiveRate(threshold, persons, box));
  const begun = who.charAt(0).toUpperCase() + who.slice(1);
  return `${begun} will be taken for someone on this list.`;
}

/** What decides by itself, for the whole box. */
export function policyInWords(box) {
  if (box.threshold === null)
    return (
      `The threshold rises with the list, so that ${strangers(box.false_positive_rate)} is taken for someone on it, ` +
      "however long it gets. It is never under 0.7."
    );
  return `The threshold is ${score(box.threshold)} for every list, as the settings say. The longer a list, the more strangers are taken for someone on it.`;
}

export function score(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

const CHECKS = {
  size: ["Too small", "pixels", "Let the person come closer, or use a camera with a longer lens."],
  square: ["Too small", "pixels", "Let the person come closer."],
  yaw: ["Turned too far to the side", "°", "Let the person face the camera."],
  pitch: ["Turned too far up or down", "°", "Hang the camera at the height of faces."],
  roll: ["Head tilted too far", "°", "Let the person hold the head upright."],
  sharpness: ["Not sharp enough", "", "More light, or less motion, gives sharper pictures."],
  presence: ["Not clearly a face", "", "Something may cover it."],
  face_presence: ["Not clearly a face", "", "Something may cover it."],
  brightness: ["Too dark or too bright", "", "Light the face from the camera's side."],
  inside: ["Cut off at the picture's edge", "", "The whole face must be in the picture."],
  passage_frames: ["Seen in too few frames of this visit", "", "Somebody new is added once a visit shows them in as many; those who pass quickly are not."],
  no_room: ["The disk is full", "", "Make room on the box; nobody is added before."],
  uncertain_match: ["May be somebody known, but it cannot be said for sure", "", "Add better photos of that person."],
};
const MEASURES = {
  size: "Size",
  yaw: "Turned sideways",
  pitch: "Turned up or down",
  roll: "Tilted",
  sharpness: "Sharpness",
  brightness: "Brightness",
  face_presence: "Certainty that it is a face",
  presence: "Certainty that it is a face",
  passage_frames: "Frames",
  no_room: "Megabytes free",
  inside: "Share inside the picture",
  eye_distance: "Distance of the eyes",
  eyes_open: "Eyes open",
  mouth_open: "Mouth open",
};
const UNITS = { size: " px", no_room: " MB", eye_distance: " px", yaw: "°", pitch: "°", roll: "°" };

export function measureName(name) {
  return MEASURES[name] ?? name.replaceAll("_", " ");
}

export function measured(name, value) {
  const digits = name === "passage_frames" ? 0 : Math.abs(value) >= 20 ? 0 : Math.abs(value) >= 2 ? 1 : 2;
  return `${value.toFixed(digits)}${UNITS[name] ?? ""}`;
}

/** A reason of a refusal: what, its value, the limit. */
export function reasonInWords(reason) {
  const [text] = CHECKS[reason.check] ?? [`${measureName(reason.check)} out of bounds`];
  return `${text}: ${measured(reason.check, reason.value)}, the limit is ${measured(reason.check, reason.limit)}`;
}

/** Whether it says that the face may be somebody known, and not that it misses a limit. */
export function isUnsure(reason) {
  return reason.check === "uncertain_match";
}

export function adviceFor(reason) {
  return CHECKS[reason.check]?.[2] ?? "";
}

/** A person's name: the field that says `name`, else the first one, else nothing. */
export function nameIn(fields) {
  const said = (fields ?? []).find((one) => /^name\s*[:=]/i.test(one));
  const name = said ? said.replace(/^name\s*[:=]\s*/i, "") : (fields ?? []).find((one) => one.trim());
  return name?.trim() ?? "";
}

export function nameOf(person) {
  return nameIn(person.fields) || `Unnamed ${person.person_id.slice(0, 8)}`;
}

export const SCOPES = [
  ["recognize", "Recognize", "compare faces, add nobody"],
  ["enrol", "Enrol", "add, change and erase persons"],
  ["read", "Read", "see persons, history and pictures"],
  ["admin", "Administer", "everything"],
];

export function scopeNames(scopes) {
  return SCOPES.filter(([value]) => scopes.includes(value))
    .map(([, text]) => text)
    .join(", ");
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
