// The frame: signing in, the views and the way between them.

import { session, signIn, signInWithToken, signOut, whenSignedOut } from "./api.js";
import { explained, field, h, hiddenUsername, icon, input, toast } from "./dom.js";
import { accessView } from "./access.js";
import { auditView } from "./audit.js";
import { boxView } from "./box.js";
import { camerasView } from "./cameras.js";
import { enrolView } from "./enrol.js";
import { listsView } from "./lists.js";
import { liveView } from "./live.js";
import { peopleView } from "./people.js";
import { personView } from "./person.js";
import { unknownsView } from "./unknowns.js";

// name, text, who sees it, view; a view returns what is to be called when it is left, if anything
const VIEWS = [
  ["live", "Live", (who) => who.can("read"), liveView],
  ["people", "People", (who) => who.can("read"), peopleView],
  ["unknowns", "Unknowns", (who) => who.can("read"), unknownsView],
  ["lists", "Lists", (who) => who.can("read"), listsView],
  ["cameras", "Cameras", (who) => who.can("read"), camerasView],
  ["access", "Access", (who) => who.can("admin") && !who.isBound, accessView],
  ["audit", "Audit", (who) => who.can("admin") && !who.isBound, auditView],
  ["box", "Box", () => true, boxView],
];
const INNER = { enrol: ["people", enrolView], person: ["people", personView] };

let who = null;
let leave = () => {};
let shown = 0;

// --- signing in ---

function signInView(notice = "") {
  leave();
  document.title = "Sign in · edge";
  const email = input({ type: "email", name: "email", autocomplete: "username", required: true });
  const password = input({ type: "password", name: "password", autocomplete: "current-password", required: true });
  const token = input({ type: "password", name: "token", spellcheck: false, required: true });
  const byPassword = signInForm("Sign in", [field("E-mail", email), field("Password", password)], () =>
    signIn(email.value.trim(), password.value),
  );
  const byToken = signInForm(
    "Sign in with the token",
    [hiddenUsername("token"), field("Token", token, "The one of the first start lies on the box, in data/admin.token.")],
    () => signInWithToken(token.value.trim()),
    true,
  );
  document.body.replaceChildren(
    h(
      "main.sign-in",
      {},
      h("h1", {}, h("img.logo", { src: "console/icon.svg", alt: "" }), "edge"),
      h("p.lead", {}, "Faces, recognised on this box. Nothing leaves the building."),
      notice ? h("p.notice", { role: "status" }, notice) : null,
      byPassword,
      h("details", {}, h("summary", {}, "Use a token instead"), byToken),
      h("p.hint", {}, "No user yet? On the box: ", h("code", {}, "edge user add you@example.org")),
    ),
  );
  email.focus();
}

function signInForm(text, controls, send, isToken = false) {
  const trouble = h("p.error", { role: "alert", hidden: true });
  const go = h("button.primary", { type: "submit" }, text);
  return h(
    "form.card",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        trouble.hidden = true;
        try {
          enter(await send());
        } catch (error) {
          trouble.textContent = refusalOf(error, isToken);
          trouble.hidden = false;
          go.disabled = false;
          event.target.querySelector("input").focus();
        }
      },
    },
    ...controls,
    trouble,
    go,
  );
}

function refusalOf(error, isToken) {
  if (error.status === 403 || error.status === 401)
    return isToken
      ? "This token is not known here, was revoked, or has expired. Check it, then try again."
      : "No user has this address and password. Check both, then try again.";
  return explained(error);
}

// --- signed in ---

function enter(signedIn) {
  who = signedIn;
  const links = VIEWS.filter(([, , isSeen]) => isSeen(who)).map(([name, text]) =>
    h("a", { href: `#/${name}`, id: `to-${name}`, onclick: (event) => again(event, name) }, icon(name), h("span", {}, text)),
  );
  const out = h("button.quiet", { type: "button", id: "sign-out", onclick: leaveForGood }, icon("out"), "Sign out");
  document.body.replaceChildren(
    h("a.skip", { href: "#main", onclick: toMain }, "To the content"),
    h(
      "header.bar",
      {},
      h("a.brand", { href: "#/live" }, h("img.logo", { src: "console/icon.svg", alt: "" }), "edge"),
      h("nav", { "aria-label": "Views" }, links),
      h("div.account", {}, h("span.who", { title: `Signed in as ${who.name}` }, who.name), out),
    ),
    h("main", { id: "main", tabIndex: -1 }),
  );
  show();
}

/** The view that is shown already is read anew. */
function again(event, name) {
  if (location.hash === `#/${name}`) {
    event.preventDefault();
    show();
  }
}

function toMain(event) {
  event.preventDefault();
  document.querySelector("main").focus();
}

async function leaveForGood() {
  try {
    await signOut();
  } catch (error) {
    if (!error.isSignedOut) return toast(explained(error), true);
  }
  who = null;
  history.replaceState(null, "", "#/");
  signInView("You are signed out.");
}

function show() {
  if (!who) return;
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const seen = VIEWS.filter(([, , isSeen]) => isSeen(who));
  const [parent, inner] = INNER[name] ?? [name, null];
  const found = seen.find(([one]) => one === parent) ?? seen[0];
  leave();
  leave = () => {};
  const number = ++shown;
  const main = document.querySelector("main");
  main.replaceChildren();
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.id === `to-${found[0]}`;
    if (isHere) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${found[1]} · edge`;
  const left = (inner ?? found[3])(main, who, ...rest);
  if (typeof left === "function" && number === shown) leave = left;
  window.scrollTo(0, 0);
  // whoever hears the page is told where they are; whoever has just signed in is too
  main.querySelector("h1")?.focus({ preventScroll: true });
}

whenSignedOut(() => {
  if (!who) return;
  who = null;
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  signInView("Your session has ended. Sign in again.");
});
window.addEventListener("hashchange", show);

try {
  const found = await session();
  if (found) enter(found);
  else signInView();
} catch (error) {
  signInView(explained(error));
}
