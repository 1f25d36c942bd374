// Calls of the public API, with the key of this session. Knows no view.

import { changed, state } from "./state.js";

const KEY = "darkroom.key";
const base = new URL(".", document.baseURI);
let waiting = [];

// An answer that is an error: RFC 9457 problem details.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the service answered ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.fields = body.errors ?? [];
  }
}

// There was no answer.
export class Away extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

// The address of a link of the API as this page reaches it: a proxy may know the service by another name.
export function local(link) {
  return new URL(link.slice(link.indexOf("/v1/") + 1), base).href;
}

// Calls the API and returns its answer's JSON; null where there is none. Waits for a key where one is needed.
// Throws Problem or Away.
export async function call(method, path, { json, body, headers = {} } = {}) {
  const sent = json === undefined ? body : JSON.stringify(json);
  const type = json === undefined ? {} : { "content-type": "application/json" };
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const credentials = key ? { authorization: `Bearer ${key}` } : {};
    const response = await reach(path, { method, body: sent, headers: { ...type, ...credentials, ...headers } });
    if (response.ok) return response.status === 204 ? null : response.json();
    const problem = new Problem(response.status, await response.json().catch(() => ({})));
    if (response.status !== 401) throw problem;
    if (key === sessionStorage.getItem(KEY)) await askForKey(key);
  }
}

async function reach(path, options) {
  try {
    const response = await fetch(new URL(path, base), { cache: "no-store", credentials: "omit", ...options });
    setAway(false);
    return response;
  } catch {
    setAway(true);
    throw new Away();
  }
}

function setAway(isAway) {
  if (state.away === isAway) return;
  state.away = isAway;
  changed();
}

function askForKey(refused) {
  if (!state.access.asked) {
    sessionStorage.removeItem(KEY);
    state.access = { asked: true, message: refused ? "The service does not accept this key." : "" };
    changed();
  }
  return new Promise((resolve) => waiting.push(resolve));
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

// Keeps a key until the tab is closed, and lets the calls go on that wait for one.
export function enterKey(text) {
  const key = text.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    state.access.message = "A key looks like dk_…, without spaces.";
  } else {
    sessionStorage.setItem(KEY, key);
    state.access = { asked: false, message: "" };
    for (const resolve of waiting.splice(0)) resolve();
  }
  changed();
}

// Forgets everything that this tab keeps.
export function forgetKey() {
  sessionStorage.clear();
  location.reload();
}
