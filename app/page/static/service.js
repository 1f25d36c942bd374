// What the service has: its models, its workers, and whether a job sent now would be run. Read now and then.

import { Away, Problem, call } from "./api.js";
import { chooseModel, chooseTab, currentModel, currentSchema } from "./form.js";
import { changed, state } from "./state.js";
import { TABS } from "./tabs.js";

const MILLISECONDS = 5000;
const READINESS_ROUNDS = 3; // the service writes to its storage to answer
let round = 0;
let canSeeWorkers = true;

export async function watchService() {
  if (!document.hidden) await refresh();
  setTimeout(watchService, MILLISECONDS);
}

async function refresh() {
  try {
    state.models = (await call("GET", "v1/models")).data;
    if (round % READINESS_ROUNDS === 0) await readNetworks();
    await completeForm();
    if (!state.preprocessors.length) state.preprocessors = (await call("GET", "v1/preprocessors")).data;
    if (state.trouble || round++ % READINESS_ROUNDS === 0) state.trouble = await readTrouble();
    if (canSeeWorkers) state.workers = (await call("GET", "v1/workers")).data;
  } catch (error) {
    if (error instanceof Problem && error.status === 403) canSeeWorkers = false;
    else if (error instanceof Problem) state.trouble = error.message;
    else if (!(error instanceof Away)) throw error;
  }
  changed();
}

async function readNetworks() {
  state.upscalers = (await call("GET", "v1/upscalers")).data;
  state.erasers = (await call("GET", "v1/erasers")).data;
}

// Has the form name a model that is there, and its schema read.
async function completeForm() {
  const { tab, model } = state.form;
  const ids = TABS[tab].models().map((one) => one.id);
  if (!ids.length) {
    if (tab !== "generate") await chooseTab("generate");
  } else if (currentModel() === undefined) await chooseModel(ids[0]);
  else if (currentSchema() === undefined) await chooseModel(model);
}

async function readTrouble() {
  try {
    await call("GET", "readyz");
    return "";
  } catch (error) {
    if (error instanceof Problem) return error.fields.map((one) => one.message).join("; ") || error.message;
    throw error;
  }
}
