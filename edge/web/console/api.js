// The box's own API, asked with the session's cookie. No other origin is ever asked.

let csrfToken = "";
let onSignedOut = () => {};

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? "the box gave no answer that can be read");
    this.status = status;
    this.errors = body?.errors ?? [];
    this.isSignedOut = status === 401;
  }
}

export function whenSignedOut(listener) {
  onSignedOut = listener;
}

/** POST to a route of the API: an object goes as JSON, a FormData as it is. */
export async function call(path, body = {}) {
  const headers = { "X-CSRF-Token": csrfToken };
  const isForm = body instanceof FormData;
  if (!isForm) headers["Content-Type"] = "application/json";
  return answered(await sent(path, { method: "POST", headers, body: isForm ? body : JSON.stringify(body) }));
}

/** Every record of a paged route. */
export async function all(path, key, body = {}) {
  const found = [];
  let cursor = "";
  do {
    const page = await call(path, { ...body, limit: 100, cursor });
    found.push(...page[key]);
    cursor = page.cursor;
  } while (cursor);
  return found;
}

export async function get(path) {
  return answered(await sent(path, {}));
}

export async function getText(path) {
  const response = await sent(path, {});
  if (!response.ok) throw new ApiError(response.status, null);
  return response.text();
}

async function sent(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Error("The box does not answer. Check that it is on and that this device is on its network.");
  }
}

async function answered(response) {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const error = new ApiError(response.status, body);
  if (error.isSignedOut) onSignedOut();
  throw error;
}

// --- the session ---

/** Who is signed in, or null. */
export async function session() {
  return kept(await get("/session"));
}

export async function signIn(email, password) {
  return begun({ email, password }, {});
}

export async function signInWithToken(token) {
  return begun({}, { Authorization: `Bearer ${token}` });
}

async function begun(body, headers) {
  const response = await sent("/session/begin", {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const told = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(response.status, told);
  return kept(told);
}

export async function signOut() {
  await call("/user/logout");
  csrfToken = "";
}

function kept(told) {
  if (!told.signed_in) return null;
  csrfToken = told.csrf_token;
  const can = (scope) => told.scope.includes(scope) || told.scope.includes("admin");
  return { ...told, can, isBound: Boolean(told.list_id || told.source_id) };
}

// --- what the box offers ---

let routes = null;

/** Whether this box has that route: /metrics, for one, may be switched off. */
export async function offers(path) {
  routes ??= get("/openapi.json").then((document) => document.paths);
  return path in (await routes);
}
