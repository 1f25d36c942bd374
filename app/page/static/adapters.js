// What a training has made, and how the next request uses it.

import { chooseTab, chooseModel, currentTasks, setValue, valueAt } from "./form.js";
import { say, state } from "./state.js";

// Where the receipt of a training lists what it has made -> the field of a request that names it, and the name there.
const USES = {
  loras: { field: "loras", name: "name" },
  textual_inversions: { field: "textual_inversions", name: "name" },
  controlnets: { field: "controls", name: "controlnet" },
};

// The result of a training first, then its snapshots, the latest first: [{ list, id, step, sha256 }].
export function madeBy(job) {
  const made = job.receipt?.training ?? {};
  const found = Object.keys(USES).flatMap((list) => (made[list] ?? []).map((one) => ({ ...one, list })));
  return found.sort((one, other) => other.step - one.step);
}

// Puts an adapter into the next request for the model that it was trained on.
export async function useMade(job, { list, id }) {
  const { field, name } = USES[list];
  state.shown = null;
  location.hash = "create";
  await chooseTab("generate");
  await chooseModel(job.model);
  if (list === "controlnets" && currentTasks().includes("controlnet")) state.form.task = "controlnet";
  const others = (valueAt(field) ?? []).filter((entry) => entry[name] && entry[name] !== id);
  setValue(field, [...others, { [name]: id }]);
  if (!valueAt("prompt")) setValue("prompt", job.receipt.parameters.images[0].caption);
  state.form.open.add("adapters");
  say(`${id} is in the form.`);
}
