// What trainings have shown so far: the loss of each step, and sample images. Event streams bring them, also again.

import { changed, state } from "./state.js";

// The history of a training: { losses: Map of step -> loss, samples: Map of step -> URLs by index }.
export function historyOf(id) {
  return state.histories.get(id) ?? { losses: new Map(), samples: new Map() };
}

// Whether the event stream of a training was read since the page was loaded.
export function hasHistory(id) {
  return state.histories.has(id);
}

export function beginHistory(id) {
  if (!hasHistory(id)) state.histories.set(id, historyOf(id));
}

export function noteLoss(id, step, loss) {
  historyOf(id).losses.set(step, loss);
  changed();
}

export function noteSample(id, step, index, url) {
  const { samples } = historyOf(id);
  if (!samples.has(step)) samples.set(step, []);
  samples.get(step)[index] = url;
  changed();
}
