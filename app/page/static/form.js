// The form: what has been set in it, and the request that it makes. Fields come from the model's schema alone.

import { Away, Problem, call } from "./api.js";
import { take } from "./jobs.js";
import { PAINTED, mask } from "./mask.js";
import { upload } from "./pictures.js";
import { fitting, propertiesOf } from "./schema.js";
import { changed, say, state } from "./state.js";

const DRAFT = "darkroom.draft";
const form = state.form;
let sent = null; // the request that is on its way, or whose answer was lost: { text, key }

export function currentModel() {
  return state.models.find((model) => model.id === form.model);
}

// The schema of the request that the form makes now; undefined while it is being read.
export function currentSchema() {
  return state.schemas[form.model]?.[form.task];
}

export async function chooseModel(id) {
  form.model = id;
  form.errors = {};
  const tasks = currentModel()?.tasks ?? [];
  if (!tasks.includes(form.task)) form.task = tasks[0];
  changed();
  // Read again each time: LoRAs come and go.
  state.schemas[id] = (await call("GET", `v1/models/${encodeURIComponent(id)}`)).schemas;
  changed();
}

export function chooseTask(task) {
  form.task = task;
  form.errors = {};
  save();
  changed();
}

export function valueAt(path) {
  return path.split(".").reduce((value, step) => value?.[step], form.values);
}

// Sets a field by its path, such as `controls.0.image`; undefined: the model's own.
export function setValue(path, value) {
  const steps = path.split(".");
  const last = steps.pop();
  let holder = form.values;
  for (const step of steps) holder = holder[step] ??= listOf(step) ?? {};
  if (Array.isArray(holder) && value === undefined) holder.splice(Number(last), 1);
  else if (value === undefined) delete holder[last];
  else holder[last] = value;
  if (Array.isArray(holder) && !holder.length) delete form.values[steps[0]];
  for (const one of Object.keys(form.errors)) {
    if (one === path || one.startsWith(`${path}.`)) delete form.errors[one];
  }
  if (path === "image" && form.values.mask_image === PAINTED) {
    delete form.values.mask_image;
    mask.clear();
  }
  save();
  changed();
}

// An empty list for a field of images, which is filled entry by entry.
function listOf(name) {
  return name === "references" ? [] : undefined;
}

// Sends the request; where it is refused, the reasons are in `form.errors` by field.
export async function submit() {
  if (form.sending) return;
  Object.assign(form, { sending: true, errors: {}, problem: "" });
  changed();
  try {
    const body = await request();
    const headers = { "idempotency-key": keyOf(body) };
    take(await call("POST", `v1/${form.task}`, { json: body, headers }), body.prompt);
    sent = null;
  } catch (error) {
    refuse(error);
  } finally {
    form.sending = false;
    changed();
  }
}

// The same request sent again has the same key until it was answered, so that it makes one job.
function keyOf(body) {
  const text = JSON.stringify([form.task, body]);
  if (sent?.text !== text) sent = { text, key: crypto.getRandomValues(new Uint32Array(4)).join("-") };
  return sent.key;
}

async function request() {
  const names = Object.keys(currentSchema().properties);
  const set = names.filter((name) => name in form.values).map((name) => [name, form.values[name]]);
  const body = { ...Object.fromEntries(set), model: form.model };
  if (body.mask_image === PAINTED) body.mask_image = (await upload(await mask.encode())).id;
  return body;
}

export function refuse(error) {
  if (!(error instanceof Problem || error instanceof Away)) throw error;
  const fields = error.fields ?? [];
  form.errors = {};
  for (const { field, message, allowed } of fields) {
    const isListed = Array.isArray(allowed) && allowed.length <= 12 && !allowed.every((one) => message.includes(one));
    (form.errors[field] ??= []).push(isListed ? `${message}; allowed: ${allowed.join(", ")}` : message);
  }
  const shown = new Set(Object.keys(currentSchema()?.properties ?? {}));
  const others = fields.filter(({ field }) => !shown.has(field.split(".")[0]));
  form.problem = fields.length
    ? others.map(({ field, message }) => `${field}: ${message}`).join("; ")
    : error.message;
  const count = fields.length - others.length;
  say(count ? `${count} ${count === 1 ? "field needs" : "fields need"} your attention.` : form.problem);
}

// Fills the form with a job's parameters, or those of a file. Unknown ones are left out.
export async function fill(parameters, { task = parameters.task ?? "txt2img", changes = {} } = {}) {
  const isKnown = state.models.some((model) => model.id === parameters.model);
  await chooseModel(isKnown ? parameters.model : form.model);
  if (!currentModel().tasks.includes(task)) return say(`${currentModel().title} cannot do ${task}.`);
  form.task = task;
  const schema = currentSchema();
  const kept = { previews: form.values.previews };
  const wanted = { ...parameters, ...changes, task: null, model: null }; // these two are chosen above the fields
  form.values = { ...kept, ...fitting(wanted, schema, schema) };
  form.problem = "";
  for (const name of ["image", "mask_image", "control_image"]) asUpload(form.values, name);
  for (const control of form.values.controls ?? []) asUpload(control, "image");
  // A receipt has the size of each reference beside it.
  form.values.references = form.values.references?.map((one) => one.image ?? one);
  for (const index of form.values.references?.keys() ?? []) asUpload(form.values.references, index);
  if (!form.values.references) delete form.values.references;
  mask.clear();
  save();
  say(isKnown || !parameters.model ? "The form is filled." : `Model ${parameters.model} is not available here; the form has the rest.`);
}

// Receipts name an input by where it is stored, files by its hash; an upload has the same hash.
function asUpload(holder, name) {
  const found = /^(?:inputs\/|sha256:)([0-9a-f]{64})/.exec(holder[name] ?? "");
  if (found) holder[name] = `upload:${found[1]}`;
}

// The draft survives a reload, but for the painted mask.
function save() {
  const values = JSON.parse(JSON.stringify(form.values));
  if (values.mask_image === PAINTED) delete values.mask_image;
  sessionStorage.setItem(DRAFT, JSON.stringify({ task: form.task, model: form.model, values }));
}

export function restore() {
  const draft = sessionStorage.getItem(DRAFT);
  if (draft !== null) Object.assign(form, JSON.parse(draft));
}

export function schemaFields() {
  const schema = currentSchema();
  return schema === undefined ? {} : propertiesOf(schema, schema);
}
