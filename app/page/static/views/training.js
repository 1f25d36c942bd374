// A training: its card while it learns and after, and its dialog with every snapshot's samples.

import { madeBy, useMade } from "../adapters.js";
import { local } from "../api.js";
import { historyOf } from "../history.js";
import { isActive } from "../jobs.js";
import { curveView } from "./curve.js";
import { html, nothing } from "./html.js";

// What the card of a training shows in the place of images; `show` opens its dialog.
export function trainingImage(job, name, show) {
  const shown = latestSamples(job);
  return html`
    <button type="button" class="training" aria-label="Show training ${name}" @click=${show}>
      ${curveView(historyOf(job.id).losses, job.progress.steps)}
      <span class="samples">${shown.map((url, index) => html`<img src=${url} alt="Sample ${index + 1} of ${name}" />`)}</span>
    </button>
    ${isActive(job) ? html`<progress max="1" .value=${job.progress.fraction ?? 0} aria-label="Progress of the training"></progress>` : nothing}
  `;
}

// The finished images, or the last samples that the event stream has brought.
function latestSamples(job) {
  if (job.images.length) return job.images.map((image) => local(image.url));
  const { samples } = historyOf(job.id);
  return samples.size ? samples.get(Math.max(...samples.keys())).filter(Boolean) : [];
}

// In the dialog: the curve, and the samples of each snapshot, the latest first.
export function trainingFigure(job, name) {
  const { losses, samples } = historyOf(job.id);
  const isShownAbove = (step) => job.images.length && step === job.progress.steps;
  const snapshots = [...samples].filter(([step]) => !isShownAbove(step)).sort(([one], [other]) => other - one);
  return html`
    <figure class="lessons">
      ${curveView(losses, job.progress.steps)}
      ${job.images.length ? samplesView("The result", job.images.map((image) => local(image.url)), name) : nothing}
      ${snapshots.map(([step, urls]) => samplesView(`After step ${step}`, urls.filter(Boolean), name))}
    </figure>
  `;
}

function samplesView(title, urls, name) {
  return html`
    <h3>${title}</h3>
    <p class="samples">${urls.map((url, index) => html`<img src=${url} alt="Sample ${index + 1} of ${name}, ${title.toLowerCase()}" />`)}</p>
  `;
}

// Buttons that put what was trained into the next request: the result, in the dialog also each snapshot.
export function useButtons(job, count = Infinity) {
  return madeBy(job)
    .slice(0, count)
    .map((made) => html`<button type="button" class="quiet" title="Use it in the next request" @click=${() => useMade(job, made)}>Use ${made.id}</button>`);
}

// Rows of the receipt: how it was trained, and what has come of it.
export function trainingRows({ parameters, training }) {
  const { settings, images, class_prompt, class_images, sample_prompts } = parameters;
  const made = ["loras", "textual_inversions", "controlnets"].flatMap((list) => training[list] ?? []);
  return [
    ...Object.entries({ ...settings, images: images.length, class_prompt, class_images }),
    ["sample_prompts", sample_prompts.join("; ")],
    ["losses", training.losses.map((loss) => loss.toFixed(4)).join(", ")],
    ...made.map((one) => [one.id, `step ${one.step}, sha256 ${one.sha256}`]),
  ];
}
