// What the service has: its models, its workers, and whether a job sent now would be run. Read now and then.

import { Away, Problem, call } from "./api.js";
import { chooseModel, currentModel } from "./form.js";
import { changed, state } from "./state.js";

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
    if (currentModel() === undefined && state.models.length) await chooseModel(state.models[0].id);
    else if (state.schemas[state.form.model] === undefined) await chooseModel(state.form.model);
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

async function readTrouble() {
  try {
    await call("GET", "readyz");
    return "";
  } catch (error) {
    if (error instanceof Problem) return error.fields.map((one) => one.message).join("; ") || error.message;
    throw error;
  }
}
