// Access: permanent tokens of cameras and programs, and the users who sign in.

import { all, call } from "./api.js";
import { button, choices, confirmDialog, empty, field, fill, formDialog, h, head, hiddenUsername, infoDialog, input, select, table, toast, when } from "./dom.js";
import { SCOPES, scopeNames } from "./words.js";

const ENDS = [["never", "never"], ["1", "in a day"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"]];

export function accessView(main, who) {
  const place = h("div");
  let known = { lists: [], sources: [] };
  const again = () => fill(place, show);
  const lead = "Tokens are for cameras and programs, users are for people. Each may do what its scopes say.";
  main.append(
    head("Access", lead, button("New token", () => createToken(known, again), "primary"), button("New user", () => createUser(again))),
    place,
  );

  async function show() {
    const [{ tokens }, { users }, lists, sources] = await Promise.all([
      call("/tokens"),
      call("/users"),
      all("/person/lists", "lists"),
      all("/sources", "sources"),
    ]);
    known = { lists, sources };
    return [
      h("h2", {}, "Tokens"),
      tokens.length ? tokensTable(tokens, known, again) : empty("No token", "A camera needs one to post frames.", button("New token", () => createToken(known, again), "primary")),
      h("h2", {}, "Users"),
      users.length ? usersTable(users, who, again) : empty("No user yet", "With a user you sign in by e-mail and password, and need not paste a token.", button("New user", () => createUser(again), "primary")),
    ];
  }

  again();
}

// --- tokens ---

function tokensTable(tokens, known, done) {
  return table(
    "Tokens",
    [
      ["Name", (one) => h("strong", {}, one.name || "unnamed")],
      ["May", (one) => scopeNames(one.scope)],
      ["Bound to", (one) => boundTo(one, known)],
      ["Ends", (one) => when(one.expires)],
      ["Last used", (one) => when(one.last_used)],
      ["", (one) => h("div.row", {}, button("Change end", () => changeEnd(one, done)), button("Revoke", () => revoke(one, done)))],
    ],
    tokens,
  );
}

function boundTo(token, { lists, sources }) {
  const list = lists.find((one) => one.id === token.list_id)?.name ?? token.list_id;
  const source = sources.find((one) => one.source_id === token.source_id)?.name ?? token.source_id;
  return [list && `list ${list}`, source && `camera ${source}`].filter(Boolean).join(", ") || "nothing";
}

function createToken({ lists, sources }, done) {
  const name = input({ maxLength: 100, required: true, placeholder: "camera at the door" });
  const scopes = choices("May", SCOPES, ["enrol"], "A camera that adds people needs Enrol; one that only recognises, Recognize.");
  const list = select([["", "any list"], ...lists.map((one) => [one.id, one.name])], "");
  const source = select([["", "any camera"], ...sources.map((one) => [one.source_id, one.name])], "");
  const expires = select(ENDS, "never");
  const named = { name: field("Name", name), list_id: field("Only this list", list), source_id: field("Only this camera", source), expires: field("Ends", expires) };
  formDialog("New token", [named.name, scopes, h("div.two", {}, named.list_id, named.source_id), named.expires], {
    fieldsByName: named,
    submit: "Make the token",
    send: async (close) => {
      const scope = scopes.chosen();
      if (!scope.length) throw new Error("Tick at least one thing that the token may do.");
      const body = { name: name.value.trim(), scope, expires: expires.value };
      if (list.value) body.list_id = list.value;
      if (source.value) body.source_id = source.value;
      const { token } = await call("/token/create", body);
      close();
      showSecret(token.id, source.value);
      done();
    },
  });
}

function showSecret(secret, sourceId) {
  const shown = input({ value: secret, readOnly: true, className: "secret" });
  const line = `curl -H "Authorization: Bearer ${secret}" -F image=@frame.jpg ${sourceId ? `-F source_id=${sourceId} ` : ""}${location.origin}/v1/person/create`;
  infoDialog("The token", [
    h("p", {}, "This is the only time that it is shown. Copy it now."),
    field("Token", shown),
    button("Copy", async () => {
      shown.select();
      // the clipboard is there on https and on this machine alone; elsewhere the selection can be copied by hand
      if (navigator.clipboard) await navigator.clipboard.writeText(secret);
      toast(navigator.clipboard ? "Copied." : "Selected: press Ctrl+C.");
    }),
    h("p.hint", {}, "A camera or program posts frames like this:"),
    h("pre", { tabIndex: 0 }, line),
  ]);
}

function changeEnd(token, done) {
  const expires = select(ENDS, "90");
  const named = { expires: field("Ends", expires) };
  formDialog(`When “${token.name || "unnamed"}” ends`, [named.expires], {
    fieldsByName: named,
    send: async (close) => {
      await call("/token/update", { token_id: token.id, expires: expires.value });
      close();
      toast("Changed.");
      done();
    },
  });
}

function revoke(token, done) {
  confirmDialog("Revoke the token?", `Whatever uses “${token.name || "unnamed"}” is refused from then on, and who signed in with it is signed out.`, {
    submit: "Revoke the token",
    act: async () => {
      await call("/token/delete", { token_id: token.id });
      toast("Revoked.");
      done();
    },
  });
}

// --- users ---

function usersTable(users, who, done) {
  return table(
    "Users",
    [
      ["E-mail", (one) => [h("strong", {}, one.email), one.email === who.name ? h("span.badge", {}, "you") : null]],
      ["May", (one) => scopeNames(one.scope)],
      ["Since", (one) => when(one.created)],
      ["Password set", (one) => when(one.password_set)],
      ["", (one) => h("div.row", {}, button("New password", () => newPassword(one, done)), button("Delete", () => deleteUser(one, who, done)))],
    ],
    users,
  );
}

const PASSWORD_HINT = "6 characters or more; a long one of several words is best.";

function createUser(done) {
  const email = input({ type: "email", autocomplete: "username", required: true, maxLength: 254 });
  const password = input({ type: "password", autocomplete: "new-password", required: true, minLength: 6 });
  const scopes = choices("May", SCOPES, ["admin"]);
  const named = { email: field("E-mail", email, "Only a name to sign in with: nothing is ever sent."), password: field("Password", password, PASSWORD_HINT) };
  formDialog("New user", [named.email, named.password, scopes], {
    fieldsByName: named,
    submit: "Make the user",
    send: async (close) => {
      const scope = scopes.chosen();
      if (!scope.length) throw new Error("Tick at least one thing that the user may do.");
      await call("/user/create", { email: email.value.trim(), password: password.value, scope });
      close();
      toast("User made.");
      done();
    },
  });
}

function newPassword(user, done) {
  const password = input({ type: "password", autocomplete: "new-password", required: true, minLength: 6 });
  const named = { password: field("New password", password, PASSWORD_HINT) };
  formDialog(`New password for ${user.email}`, [hiddenUsername(user.email), h("p", {}, "Every login made with the old password ends."), named.password], {
    fieldsByName: named,
    send: async (close) => {
      await call("/user/update", { email: user.email, password: password.value });
      close();
      toast("Password changed.");
      done();
    },
  });
}

function deleteUser(user, who, done) {
  const text = user.email === who.name ? "That is you: you will be signed out." : `${user.email} is signed out and cannot sign in again.`;
  confirmDialog("Delete the user?", text, {
    submit: "Delete the user",
    act: async () => {
      await call("/user/delete", { email: user.email });
      toast("Deleted.");
      done();
    },
  });
}
