// The page's state, in one object, and how it changes. Knows neither the API nor how anything looks.

const SAID_MILLISECONDS = 10_000;

export const state = {
  access: { asked: false, message: "" }, // whether a key must be entered, and why
  away: false, // whether the service does not answer
  trouble: "", // what keeps the service from running jobs, in its own words
  models: [],
  upscalers: [],
  erasers: [],
  preprocessors: [],
  schemas: {}, // model id -> { schemas: { task: JSON Schema }, training_schemas: { kind: JSON Schema } }
  workers: null, // null: not known yet, or not for this caller's eyes
  jobs: new Map(), // id -> job, newest first
  older: null, // cursor of the next page of jobs
  prompts: new Map(), // id of a job -> its prompt, which the service shows once the job has completed
  live: new Map(), // id of a job -> { previews: [URL, …] } from its event stream
  histories: new Map(), // id of a training -> its losses and samples so far, see history.js
  form: {
    tab: "generate",
    tasks: { generate: "txt2img", upscale: "upscale", erase: "erase", train: "lora" }, // by tab; of trainings the kind
    models: {}, // tab -> id of the model
    drafts: { generate: { previews: 4 }, upscale: {}, erase: {}, train: {} }, // tab -> values, see below
    archive: null, // zip file of images to learn from
    errors: {}, // path of a field -> messages
    problem: "", // an error that is not about a field
    open: new Set(), // ids of the groups that are unfolded
    hints: new Set(), // paths of the fields whose description is shown
    sending: false,
    uploading: new Set(), // paths of image fields whose file is on its way

    // Of the tab that is shown.
    get task() {
      return this.tasks[this.tab];
    },
    set task(task) {
      this.tasks[this.tab] = task;
    },
    get model() {
      return this.models[this.tab] ?? null;
    },
    set model(id) {
      this.models[this.tab] = id;
    },
    // What the person has set; everything else is the model's own.
    get values() {
      return this.drafts[this.tab];
    },
    set values(values) {
      this.drafts[this.tab] = values;
    },
  },
  inputs: new Map(), // image reference -> { url, width, height, name }
  shown: null, // { id, index } of the image that is looked at
  confirming: null, // id of the job whose deletion waits for a second click
  dropping: false, // whether a file is dragged over the page
  said: "", // last thing that happened, for the status line and screen readers
};

let draw = () => {};
let isScheduled = false;
let silence = null;

// Sets what draws the page; it is called once for all changes before the next frame.
export function onChange(listener) {
  draw = listener;
  changed();
}

export function changed() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    draw();
  });
}

export function say(message) {
  state.said = message;
  changed();
  clearTimeout(silence);
  if (message) silence = setTimeout(() => say(""), SAID_MILLISECONDS);
}
