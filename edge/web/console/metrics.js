// Numbers out of the text of /metrics (Prometheus' exposition format): what is found is shown, the rest is left out.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+([^\s]+)/;

function samples(text) {
  return text
    .split("\n")
    .map((line) => LINE.exec(line))
    .filter(Boolean)
    .map(([, name, labels, value]) => ({ name, labels: labelsOf(labels ?? ""), value: Number(value) }));
}

function labelsOf(text) {
  return Object.fromEntries([...text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
}

/** Milliseconds of each stage: of any summary or histogram in seconds that has a label `stage`. */
export function stages(text) {
  const found = new Map();
  for (const { name, labels, value } of samples(text)) {
    const [, , part] = /^(.*_seconds)_(sum|count)$/.exec(name) ?? [];
    if (!labels.stage || !part) continue;
    const row = found.get(labels.stage) ?? { name: labels.stage.replaceAll("_", " "), sum: 0, count: 0 };
    row[part] += value;
    found.set(labels.stage, row);
  }
  const rows = [...found.values()].filter((row) => row.count > 0).map((row) => ({ ...row, ms: (row.sum / row.count) * 1000 }));
  // every frame is decoded and looked at once; what comes after is done for each face
  const { count: frames = 0 } = rows.find((row) => /^(decod|detect)/.test(row.name)) ?? rows[0] ?? {};
  const total = rows.reduce((sum, row) => sum + row.sum, 0);
  const frameMs = frames ? (total / frames) * 1000 : 0;
  return { rows, frames, frameMs, perSecond: frameMs ? 1000 / frameMs : 0 };
}
