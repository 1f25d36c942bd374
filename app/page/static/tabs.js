// The tabs of the form: for each its models, their tasks, the schema of its request and where it is sent. Knows no
// view, and not what is filled in.

import { state } from "./state.js";

export const TABS = {
  generate: {
    title: "Generate",
    modelLabel: "Model",
    labels: { txt2img: "From text", img2img: "From image", inpaint: "Inpaint", controlnet: "Control", edit: "Edit" },
    models: () => state.models,
    tasks: (model) => model.tasks,
    schema: (model, task) => state.schemas[model.id]?.schemas[task],
    path: (task) => `v1/${task}`,
  },
  upscale: networkTab("upscale", "Upscale", "Upscaler", () => state.upscalers),
  erase: networkTab("erase", "Erase", "Eraser", () => state.erasers),
  train: {
    title: "Train",
    modelLabel: "Model",
    labels: { lora: "LoRA", textual_inversion: "Textual inversion", controlnet: "ControlNet" },
    models: () => state.models.filter((model) => model.trainings.length),
    tasks: (model) => model.trainings,
    schema: (model, kind) => state.schemas[model.id]?.training_schemas[kind],
    path: () => "v1/trainings",
  },
};

// A tab for networks that do one thing, whose lists have the schemas of its requests.
function networkTab(task, title, modelLabel, models) {
  return {
    title,
    modelLabel,
    models,
    tasks: () => [task],
    schema: (model) => model.schemas[task],
    path: () => `v1/${task}`,
  };
}

// The tabs that this service has something for.
export function shownTabs() {
  return Object.keys(TABS).filter((tab) => tab === "generate" || TABS[tab].models().length);
}

// The tab in which a job's task is set up.
export function tabOf(task) {
  if (task === "training") return "train";
  return task in TABS ? task : "generate";
}
