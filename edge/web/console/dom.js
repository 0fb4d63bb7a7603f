// Elements, and what every view is made of. Text only ever becomes text: nothing here takes HTML.

const SVG = "http://www.w3.org/2000/svg";

/** h("a.button", {href: "#/", onclick}, "text", element, null): an element with classes, properties and children. */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for" || key === "list" || key === "colspan")
      element.setAttribute(key, value === true ? "" : value);
    else element[key] = value;
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return element;
}

const PATHS = {
  live: "M3 12h4l3-8 4 16 3-8h4",
  people: "M16 19a5 5 0 0 0-10 0M11 12a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M21 19a4.5 4.5 0 0 0-4-4.4M16 5.3a3.4 3.4 0 0 1 0 6.4",
  unknowns: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 1.9v.5M12 18h.01M4 4h16v16H4z",
  lists: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  cameras: "M4 8h3l2-3h6l2 3h3v11H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6",
  access: "M14 10a4 4 0 1 0-3.5 4L13 16h2v2h2v2h3v-3l-6-6",
  audit: "M6 3h9l4 4v14H6zM9 9h7M9 13h7M9 17h4",
  box: "M4 7l8-4 8 4v10l-8 4-8-4zM4 7l8 4 8-4M12 11v10",
  out: "M10 5H5v14h5M15 8l4 4-4 4M19 12H9",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M5 21a7 7 0 0 1 14 0",
  add: "M12 5v14M5 12h14",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A picture in its frame; a drawn head where there is none. */
export function face(url, alt, size = "") {
  const frame = h(`span.face${size ? "." + size : ""}`);
  if (!url) {
    frame.append(icon("person"));
    if (alt) frame.append(h("span.unseen", {}, alt));
    return frame;
  }
  const image = h("img", { src: ownPath(url), alt, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(icon("person")));
  frame.append(image);
  return frame;
}

/** The address on this origin, whatever name the box was called by when it was made. */
export function ownPath(url) {
  if (/^(data|blob):/.test(url)) return url;
  return new URL(url, location.href).pathname;
}

// --- forms ---

let fields = 0;

/** A labelled control; hint and error are read out with it. */
export function field(label, control, hint = "") {
  const id = `field-${++fields}`;
  control.id = id;
  const notes = [];
  if (hint) notes.push(h("p.hint", { id: `${id}-hint` }, hint));
  const error = h("p.error", { id: `${id}-error`, hidden: true });
  control.setAttribute("aria-describedby", [hint && `${id}-hint`, `${id}-error`].filter(Boolean).join(" "));
  const made = h("div.field", {}, h("label", { for: id }, label), control, ...notes, error);
  made.complain = (text) => {
    error.textContent = text;
    error.hidden = !text;
    control.setAttribute("aria-invalid", text ? "true" : "false");
    if (text) control.focus();
  };
  return made;
}

export function input(props = {}) {
  return h("input", { type: "text", autocomplete: "off", ...props });
}

/** Whose password it is, for password managers: they file it under that name. */
export function hiddenUsername(value) {
  return h("input", { type: "text", autocomplete: "username", value, hidden: true, tabIndex: -1 });
}

/** A choice of [value, text] pairs. */
export function select(pairs, chosen, props = {}) {
  const made = h("select", props, pairs.map(([value, text]) => h("option", { value }, text)));
  made.value = chosen ?? "";
  return made;
}

/** Checkboxes under one legend; `.chosen()` says which are ticked. */
export function choices(legend, pairs, chosen = [], hint = "") {
  const boxes = pairs.map(([value, text, note]) => {
    const box = h("input", { type: "checkbox", value, checked: chosen.includes(value) });
    return [box, h("label.check", {}, box, h("span", {}, text, note ? h("small", {}, note) : null))];
  });
  const made = h("fieldset", {}, h("legend", {}, legend), hint ? h("p.hint", {}, hint) : null, boxes.map((one) => one[1]));
  made.chosen = () => boxes.filter(([box]) => box.checked).map(([box]) => box.value);
  return made;
}

export function button(text, onclick, kind = "") {
  return h(`button${kind ? "." + kind : ""}`, { type: "button", onclick: busy(onclick) }, text);
}

/** What disables its button until it is done, and shows what goes wrong. */
function busy(action) {
  return async (event) => {
    const element = event.currentTarget;
    element.setAttribute("aria-disabled", "true");
    if (element.dataset.busy) return;
    element.dataset.busy = "yes";
    try {
      await action(event);
    } catch (error) {
      if (!error.isSignedOut) toast(explained(error), true);
    } finally {
      delete element.dataset.busy;
      element.removeAttribute("aria-disabled");
    }
  };
}

// --- messages ---

/** What went wrong, in a sentence that says what to do. */
export function explained(error) {
  if (!error.status) return error.message || String(error);
  const reasons = (error.errors ?? []).map((one) => `${one.field} ${one.reason}`).join("; ");
  const advice = {
    403: "What you are signed in with is not good for this. Sign in with a token or user that is.",
    413: "That is too large. Send a smaller picture.",
    429: "Too many attempts. Wait a minute, then try again.",
    500: "The box failed at this; its log says why.",
    503: "The box has its hands full. Try again in a moment.",
    507: "The disk is full. Make room under Box, or erase what is not needed.",
  }[error.status];
  return [advice ?? sentence(error.message), reasons && sentence(reasons)].filter(Boolean).join(" ");
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

const toasts = h("div.toasts", { role: "status", "aria-live": "polite" });

export function toast(text, isError = false) {
  if (!toasts.isConnected) document.body.append(toasts);
  const shown = h(`p.toast${isError ? ".bad" : ""}`, {}, text);
  toasts.append(shown);
  setTimeout(() => shown.remove(), isError ? 12000 : 5000);
}

/** What stands where there is nothing yet: what it is for, and what to do. */
export function empty(title, text, ...actions) {
  return h("div.empty", {}, h("p.title", {}, title), h("p", {}, text), actions.length ? h("p.actions", {}, actions) : null);
}

export function loading() {
  return h("p.loading", { role: "status" }, "Loading…");
}

/** Fills a place with what a promise brings, or with what went wrong and a way to try again. */
export async function fill(place, make) {
  place.replaceChildren(loading());
  place.setAttribute("aria-busy", "true");
  try {
    place.replaceChildren(...[await make()].flat());
  } catch (error) {
    if (error.isSignedOut) return;
    place.replaceChildren(
      h("div.trouble", { role: "alert" }, h("p", {}, explained(error)), button("Try again", () => fill(place, make))),
    );
  } finally {
    place.removeAttribute("aria-busy");
  }
}

// --- dialogs ---

/** A dialog with a form. `send(close)` is called on submit; it may throw an ApiError, whose fields are marked. */
export function formDialog(title, controls, { submit = "Save", send, kind = "primary", fieldsByName = {} }) {
  const trouble = h("p.error", { role: "alert", hidden: true });
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" });
  const close = () => dialog.close();
  const go = h(`button.${kind}`, { type: "submit" }, submit);
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        if (go.disabled) return;
        go.disabled = true;
        trouble.hidden = true;
        for (const one of Object.values(fieldsByName)) one.complain("");
        try {
          await send(close);
        } catch (error) {
          if (error.isSignedOut) return close();
          const named = (error.errors ?? []).filter((one) => fieldsByName[one.field]);
          for (const one of named) fieldsByName[one.field].complain(sentence(one.reason));
          if (!named.length) {
            trouble.textContent = explained(error);
            trouble.hidden = false;
          }
        } finally {
          go.disabled = false;
        }
      },
    },
    h("h2", { id: "dialog-title" }, title),
    h("div.controls", {}, controls),
    trouble,
    h("div.buttons", {}, h("button", { type: "button", onclick: close }, "Cancel"), go),
  );
  dialog.append(form);
  showDialog(dialog);
  return dialog;
}

/** A dialog that only tells something. */
export function infoDialog(title, content, done = "Done") {
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" });
  dialog.append(
    h("h2", { id: "dialog-title" }, title),
    h("div.controls", {}, content),
    h("div.buttons", {}, h("button.primary", { type: "button", onclick: () => dialog.close() }, done)),
  );
  showDialog(dialog);
  return dialog;
}

export function confirmDialog(title, text, { submit, act }) {
  return formDialog(title, [h("p", {}, text)], {
    submit,
    kind: "danger",
    send: async (close) => {
      await act();
      close();
    },
  });
}

function showDialog(dialog) {
  const before = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

// --- tables and times ---

/** A table that becomes cards on a phone. columns: [heading, row => content, class?]. */
export function table(caption, columns, rows) {
  const head = h("tr", {}, columns.map(([heading, , kind]) => h(kind ? "th." + kind : "th", { scope: "col" }, heading || h("span.unseen", {}, "Actions"))));
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      columns.map(([heading, content, kind], number) =>
        h(number ? `td${kind ? "." + kind : ""}` : "th", { scope: number ? null : "row", "data-label": heading }, content(row)),
      ),
    ),
  );
  return h(
    "div.table",
    { role: "region", "aria-label": caption, tabIndex: 0 },
    h("table", {}, h("caption.unseen", {}, caption), h("thead", {}, head), h("tbody", {}, body)),
  );
}

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS = [[60, "second"], [60, "minute"], [24, "hour"], [7, "day"], [4.35, "week"], [12, "month"], [1e9, "year"]];

/** A time as people say it, with the exact one for who points at it. */
export function when(iso) {
  if (!iso || iso === "never") return "never";
  return h("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, fromNow(iso));
}

function fromNow(iso) {
  let amount = (new Date(iso) - Date.now()) / 1000;
  if (Math.abs(amount) < 10) return "just now";
  for (const [size, unit] of STEPS) {
    if (Math.abs(amount) < size) return RELATIVE.format(Math.round(amount), unit);
    amount /= size;
  }
  return new Date(iso).toLocaleDateString();
}

setInterval(() => {
  for (const shown of document.querySelectorAll("time")) shown.textContent = fromNow(shown.dateTime);
}, 20_000);

/** Page head: the view's name and what can be done in it. */
export function head(title, lead, ...actions) {
  return h(
    "header.view",
    {},
    h("div", {}, h("h1", { tabIndex: -1 }, title), lead ? h("p.lead", {}, lead) : null),
    actions.length ? h("div.actions", {}, actions) : null,
  );
}
