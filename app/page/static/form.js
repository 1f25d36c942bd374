// The form: what has been set in each of its tabs, and the request that it makes. Fields come from schemas alone.

import { Away, Problem, call } from "./api.js";
import { take } from "./jobs.js";
import { PAINTED, maskOf } from "./mask.js";
import { upload } from "./inputs.js";
import { fitting, propertiesOf } from "./schema.js";
import { changed, say, state } from "./state.js";
import { TABS, tabOf } from "./tabs.js";

const DRAFT = "darkroom.draft";
const form = state.form;
let sent = null; // the request that is on its way, or whose answer was lost: { text, key }

export function currentModel() {
  return TABS[form.tab].models().find((model) => model.id === form.model);
}

// The tasks of the model, or the kinds of trainings that it can be the model of.
export function currentTasks() {
  const model = currentModel();
  return model === undefined ? [] : TABS[form.tab].tasks(model);
}

// The schema of the request that the form makes now; undefined while it is being read.
export function currentSchema() {
  const model = currentModel();
  return model && TABS[form.tab].schema(model, form.task);
}

export async function chooseTab(tab) {
  Object.assign(form, { tab, errors: {}, problem: "" });
  await chooseModel(currentModel()?.id ?? TABS[tab].models()[0]?.id ?? null);
}

export async function chooseModel(id) {
  form.model = id;
  form.errors = {};
  const tasks = currentTasks();
  if (tasks.length && !tasks.includes(form.task)) form.task = tasks[0];
  save();
  changed();
  if (!state.models.some((model) => model.id === id)) return;
  // Read again each time: LoRAs come and go.
  const { schemas, training_schemas } = await call("GET", `v1/models/${encodeURIComponent(id)}`);
  state.schemas[id] = { schemas, training_schemas };
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

// Sets a field by its path, such as `controls.0.image`, in the values of the tab that is shown, or in those that an
// upload was begun for; undefined: the model's own.
export function setValue(path, value, values = form.values) {
  const steps = path.split(".");
  const last = steps.pop();
  let holder = values;
  for (const step of steps) holder = holder[step] ??= listOf(step) ?? {};
  if (Array.isArray(holder) && value === undefined) holder.splice(Number(last), 1);
  else if (value === undefined) delete holder[last];
  else holder[last] = value;
  if (Array.isArray(holder) && !holder.length) delete values[steps[0]];
  for (const one of Object.keys(form.errors)) {
    if (one === path || one.startsWith(`${path}.`)) delete form.errors[one];
  }
  if (path === "image" && values.mask_image === PAINTED) {
    delete values.mask_image;
    maskOf(form.tab).clear();
  }
  save();
  changed();
}

// An empty list for a field of images, which is filled entry by entry.
function listOf(name) {
  return name === "references" ? [] : undefined;
}

// What a request is shown by: its prompt, the name of a training, or its class; empty where it has none of them.
export function titleOf({ prompt, name, class_label }) {
  return prompt || name || (class_label === undefined ? "" : `Class ${class_label}`);
}

// Sends the request; where it is refused, the reasons are in `form.errors` by field.
export async function submit() {
  if (form.sending) return;
  Object.assign(form, { sending: true, errors: {}, problem: "" });
  changed();
  try {
    const path = TABS[form.tab].path(form.task);
    const body = await request();
    const archive = form.tab === "train" ? form.archive : null;
    const headers = { "idempotency-key": keyOf(path, body, archive) };
    const content = archive === null ? { json: body } : { body: packed(body, archive) };
    take(await call("POST", path, { ...content, headers }), titleOf(body));
    sent = null;
  } catch (error) {
    refuse(error);
  } finally {
    form.sending = false;
    changed();
  }
}

// The same request sent again has the same key until it was answered, so that it makes one job.
function keyOf(path, body, archive) {
  const text = JSON.stringify([path, body, archive && [archive.name, archive.size, archive.lastModified]]);
  if (sent?.text !== text) sent = { text, key: crypto.getRandomValues(new Uint32Array(4)).join("-") };
  return sent.key;
}

async function request() {
  const names = Object.keys(currentSchema().properties);
  const set = names.filter((name) => name in form.values).map((name) => [name, form.values[name]]);
  const body = { ...Object.fromEntries(set), model: form.model };
  if (form.tab === "train") body.kind = form.task;
  if (body.sample_prompts) body.sample_prompts = body.sample_prompts.filter((prompt) => prompt.trim());
  if (body.mask_image === PAINTED) body.mask_image = (await upload(await maskOf(form.tab).encode())).id;
  return body;
}

function packed(body, archive) {
  const content = new FormData();
  content.append("request", JSON.stringify(body));
  content.append("file", archive);
  return content;
}

export function refuse(error) {
  if (!(error instanceof Problem || error instanceof Away)) throw error;
  const fields = (error.fields ?? []).map((one) => ({ ...one, field: one.field === "file" ? "images" : one.field }));
  form.errors = {};
  for (const { field, message, allowed } of fields) {
    const isListed = Array.isArray(allowed) && allowed.length <= 12 && !allowed.every((one) => message.includes(one));
    (form.errors[field] ??= []).push(isListed ? `${message}; allowed: ${allowed.join(", ")}` : message);
  }
  const shown = new Set(Object.keys(schemaFields()));
  const others = fields.filter(({ field }) => !shown.has(field.split(".")[0]));
  form.problem = fields.length
    ? others.map(({ field, message }) => `${field}: ${message}`).join("; ")
    : error.message;
  const count = fields.length - others.length;
  say(count ? `${count} ${count === 1 ? "field needs" : "fields need"} your attention.` : form.problem);
}

// Fills a tab of the form with a job's parameters, or those of a file. Unknown ones are left out.
export async function fill(parameters, { task = parameters.task ?? "txt2img", changes = {} } = {}) {
  form.tab = tabOf(task);
  const given = form.tab === "train" ? { ...parameters, ...parameters.settings, name: null } : parameters;
  const isKnown = TABS[form.tab].models().some((model) => model.id === given.model);
  if (isKnown) await chooseModel(given.model);
  else await chooseTab(form.tab);
  const wantedTask = form.tab === "train" ? given.kind ?? "lora" : task;
  if (!currentTasks().includes(wantedTask)) return say(`${currentModel()?.title ?? "This service"} cannot do ${wantedTask}.`);
  form.task = wantedTask;
  const schema = currentSchema();
  const kept = form.tab === "generate" ? { previews: form.values.previews } : {};
  const wanted = { ...given, ...changes, task: null, kind: null, model: null }; // these are chosen above the fields
  // A receipt has the size of each reference beside it.
  wanted.references = wanted.references?.map((one) => one.image ?? one);
  form.values = { ...kept, ...asUploads(fitting(wanted, schema, schema)) };
  form.problem = "";
  maskOf(form.tab).clear();
  save();
  say(isKnown || !parameters.model ? "The form is filled." : `Model ${parameters.model} is not available here; the form has the rest.`);
}

// Makes an image the input of a task, and leaves everything else that is set in its tab.
export async function startFrom(reference, task) {
  await chooseTab(tabOf(task));
  if (currentTasks().includes(task)) form.task = task;
  setValue("image", reference);
  if (form.values.mask_image !== undefined) setValue("mask_image", undefined); // it is another image's
  say("The image is in the form.");
}

// Receipts name an input by where it is stored, files by its hash; an upload has the same hash.
function asUploads(value) {
  if (Array.isArray(value)) return value.map(asUploads);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, asUploads(inner)]));
  }
  const found = typeof value === "string" && /^(?:inputs\/|sha256:)([0-9a-f]{64})(?:\.\w+)*$/.exec(value);
  return found ? `upload:${found[1]}` : value;
}

// The drafts survive a reload, but for painted masks and zip files.
function save() {
  const drafts = JSON.parse(JSON.stringify(form.drafts));
  for (const values of Object.values(drafts)) if (values.mask_image === PAINTED) delete values.mask_image;
  const { tab, tasks, models } = form;
  sessionStorage.setItem(DRAFT, JSON.stringify({ tab, tasks, models, drafts }));
}

export function restore() {
  const draft = sessionStorage.getItem(DRAFT);
  if (draft !== null) Object.assign(form, JSON.parse(draft));
}

// The fields of the request that have a choice.
export function schemaFields() {
  const schema = currentSchema();
  if (schema === undefined) return {};
  return Object.fromEntries(Object.entries(propertiesOf(schema, schema)).filter(([, part]) => part.const === undefined));
}
