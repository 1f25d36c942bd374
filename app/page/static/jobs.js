// One's own jobs: the list, the event streams of those that run, and what can be done with one.

import { Away, Problem, call, local } from "./api.js";
import { beginHistory, hasHistory, noteLoss, noteSample } from "./history.js";
import { changed, say, state } from "./state.js";

const PAGE = 30;
const MAX_STREAMS = 2; // a browser opens six connections to a host over HTTP/1.1, for all its tabs
const MAX_POSITIONS = 6;
const ACTIVE_MILLISECONDS = 1500;
const IDLE_MILLISECONDS = 12_000;
const PROMPTS = "darkroom.prompts";
const MAX_PROMPTS = 100;
const streams = new Map();
let timer = null;

export function isActive(job) {
  return job.status === "queued" || job.status === "running";
}

export function isTraining(job) {
  return job.task === "training";
}

export function jobsNewestFirst() {
  return [...state.jobs.values()].sort((one, other) => other.created_at.localeCompare(one.created_at));
}

// Takes a job as the service shows it. An answer that was on its way meanwhile does not bring an ended job back.
export function put(job) {
  const old = state.jobs.get(job.id);
  if (old !== undefined && !isActive(old) && isActive(job)) return;
  if (old !== undefined && isActive(old) && !isActive(job)) announce(job);
  state.jobs.set(job.id, { ...job, receipt: job.receipt ?? old?.receipt ?? null, queue: job.queue ?? (job.status === "queued" ? old?.queue : null) });
  if (!isActive(job)) {
    state.live.delete(job.id);
    streams.get(job.id)?.close();
    streams.delete(job.id);
  }
  changed();
}

function announce(job) {
  const texts = { completed: "is finished", cancelled: "was cancelled", failed: "failed" };
  say(`A job ${texts[job.status]}${job.error ? `: ${job.error.message}` : ""}.`);
}

// Takes a job that was just accepted. Its prompt, or a training's name, is kept for this browser tab, also after a
// reload.
export function take(job, prompt) {
  put(job);
  follow(job.id);
  state.prompts.set(job.id, prompt);
  sessionStorage.setItem(PROMPTS, JSON.stringify([...state.prompts].slice(-MAX_PROMPTS)));
  say("The job is queued.");
}

export function restorePrompts() {
  state.prompts = new Map(JSON.parse(sessionStorage.getItem(PROMPTS) ?? "[]"));
}

// Watches a job's event stream: its progress, previews and end. That of a training is read after its end, too, for
// its losses and samples.
export function follow(id) {
  const job = state.jobs.get(id);
  const isWanted = isActive(job) || (isTraining(job) && !hasHistory(id));
  if (streams.has(id) || streams.size >= MAX_STREAMS || !isWanted) return;
  if (isTraining(job)) beginHistory(id);
  const stream = new EventSource(local(job.links.events));
  streams.set(id, stream);
  const on = (kind, take) => stream.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  on("started", () => advance(id, { status: "running", queue: null }));
  on("preparing", ({ status: _, at: __, ...preparing }) => advance(id, { preparing }));
  on("progress", ({ step, steps, fraction, loss, eta_seconds }) => {
    if (typeof loss === "number") noteLoss(id, step, loss);
    advance(id, { status: "running", queue: null, progress: { step, steps, fraction, loss, eta_seconds } });
  });
  on("preview", ({ index, url, step }) => {
    if (isTraining(job)) return noteSample(id, step, index, url);
    const live = state.live.get(id) ?? { previews: [] };
    live.previews[index] = url;
    state.live.set(id, live);
    changed();
  });
  for (const end of ["completed", "failed", "cancelled"]) on(end, (data) => data.job && put(data.job));
  // The browser connects again by itself, except after an answer that was refused; of a job that has ended there is
  // no more to come.
  stream.addEventListener("error", () => {
    const latest = state.jobs.get(id);
    if (latest === undefined || !isActive(latest)) stream.close();
    if (stream.readyState === EventSource.CLOSED) streams.delete(id);
  });
}

// Other tabs need the connections.
function unfollow() {
  for (const stream of streams.values()) stream.close();
  streams.clear();
}

function advance(id, change) {
  const job = state.jobs.get(id);
  if (job === undefined || !isActive(job)) return;
  state.jobs.set(id, { ...job, ...change });
  changed();
}

// Reads the newest jobs now and then as long as the page is open: more often while some have not ended.
export async function watch() {
  clearTimeout(timer);
  if (document.hidden) unfollow();
  else await refresh();
  const isBusy = state.away || [...state.jobs.values()].some(isActive);
  clearTimeout(timer);
  timer = setTimeout(watch, isBusy ? ACTIVE_MILLISECONDS : IDLE_MILLISECONDS);
}

async function refresh() {
  try {
    const isFirst = state.jobs.size === 0;
    const ended = [...state.jobs.values()].filter((job) => !isActive(job));
    const list = await call("GET", `v1/jobs?limit=${PAGE}&include=receipt`);
    list.data.forEach(put);
    if (isFirst) state.older = list.next_cursor;
    forgetDeleted(ended, list);
    const active = jobsNewestFirst().filter(isActive).reverse();
    for (const job of [...active, ...jobsNewestFirst().filter(isTraining)]) follow(job.id);
    const queued = active.filter((job) => job.status === "queued").slice(0, MAX_POSITIONS);
    for (const job of queued) put(await call("GET", `v1/jobs/${job.id}`));
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
  }
}

// Jobs that had ended, and that the newest page should show and does not, were deleted elsewhere.
function forgetDeleted(ended, list) {
  const ids = new Set(list.data.map((job) => job.id));
  const oldest = list.has_more ? list.data.at(-1)?.created_at : "";
  for (const job of ended) {
    if (job.created_at > oldest && !ids.has(job.id)) state.jobs.delete(job.id);
  }
  changed();
}

export async function showOlder() {
  const list = await call("GET", `v1/jobs?limit=${PAGE}&include=receipt&cursor=${encodeURIComponent(state.older)}`);
  list.data.forEach(put);
  state.older = list.next_cursor;
  changed();
}

export const cancel = (id) => act(async () => put(await call("POST", `v1/jobs/${id}/cancel`)));

// Runs a job again with its own parameters, its seed and inputs included, except for `changes`.
export function rerun(id, changes = {}) {
  return act(async () => {
    const old = state.jobs.get(id);
    const prompt = old.receipt?.parameters.prompt ?? state.prompts.get(id) ?? "";
    take(await call("POST", `v1/jobs/${id}/rerun`, { json: changes }), prompt);
    state.shown = null;
  });
}

export function remove(id) {
  return act(async () => {
    await call("DELETE", `v1/jobs/${id}`);
    state.jobs.delete(id);
    state.histories.delete(id);
    state.shown = state.confirming = null;
    say("The job is deleted.");
  });
}

async function act(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
    say(error.message);
  }
  watch();
}
