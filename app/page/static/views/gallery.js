// One's jobs, newest first: what has come of them, or how far they are.

import { local } from "../api.js";
import { fill, startFrom, titleOf } from "../form.js";
import { cancel, isActive, isTraining, jobsNewestFirst, rerun, showOlder } from "../jobs.js";
import { changed, state } from "../state.js";
import { tabOf } from "../tabs.js";
import { html, nothing, repeat } from "./html.js";
import { trainingImage, useButtons } from "./training.js";

export function galleryView({ jobs, older, away }) {
  if (!jobs.size) {
    return html`<div class="empty"><p>${away ? "" : "Nothing here yet."}</p><p class="note">What you generate appears here while it develops.</p></div>`;
  }
  return html`
    <div class="gallery" role="list">
      ${repeat(jobsNewestFirst(), (job) => job.id, cardView)}
    </div>
    ${older ? html`<p class="more"><button type="button" class="quiet" @click=${showOlder}>Show older</button></p>` : nothing}
  `;
}

function cardView(job) {
  return html`
    <article class="card" role="listitem" data-job=${job.id} data-status=${job.status}>
      ${cardImages(job)}
      <div class="caption">
        <p class="prompt" title=${promptOf(job)}>${promptOf(job)}</p>
        <p class="note">${summaryOf(job)}</p>
        ${job.error ? html`<p class="error">${job.error.message}</p>` : nothing} ${actionsView(job)}
      </div>
    </article>
  `;
}

function cardImages(job) {
  if (isTraining(job)) return trainingImage(job, promptOf(job), () => show(job, 0));
  if (job.images.length) {
    return html`
      <div class="images" data-count=${Math.min(job.images.length, 4)}>
        ${job.images.map(
          (image, index) => html`
            <button type="button" class="image" aria-label="Show image ${index + 1}: ${promptOf(job)}" @click=${() => show(job, index)}>
              <img src=${local(image.url)} alt=${promptOf(job)} width=${image.width} height=${image.height} loading="lazy" />
            </button>
          `,
        )}
      </div>
    `;
  }
  if (!isActive(job)) return html`<div class="images ended" aria-hidden="true">${job.status === "failed" ? "!" : "×"}</div>`;
  const previews = state.live.get(job.id)?.previews.filter(Boolean) ?? [];
  return html`
    <div class="images developing" data-count=${Math.min(previews.length, 4)}>
      ${previews.map((url) => html`<img src=${url} alt="Preview" />`)}
    </div>
    <progress max="1" .value=${job.progress.fraction ?? 0} aria-label="Progress of the job"></progress>
  `;
}

function show(job, index) {
  state.shown = { id: job.id, index };
  changed();
}

// The prompt, the name of a training, or the class: known from the receipt; until a job has one, from the request that this page
// sent.
export function promptOf(job) {
  return titleOf(job.receipt?.parameters ?? {}) || state.prompts.get(job.id) || job.task;
}

export function summaryOf(job) {
  if (job.status === "queued") return waitingText(job);
  if (job.status === "running") return runningText(job);
  if (job.status === "cancelled") return `${job.model} · cancelled`;
  if (job.status === "failed") return `${job.model} · failed`;
  const seconds = (new Date(job.finished_at) - new Date(job.started_at)) / 1000;
  return `${job.model} · ${sizeOf(job)} · ${secondsText(seconds)}`;
}

function sizeOf(job) {
  if (isTraining(job)) return `${job.progress.steps} steps`;
  return `${job.images[0].width} × ${job.images[0].height}`;
}

function waitingText(job) {
  if (job.preparing) return `waits for ${job.preparing.name}: ${job.preparing.state}`;
  const place = job.queue ? `number ${job.queue.position} in the queue` : "queued";
  return `${place}${aboutText(job.progress.eta_seconds)}`;
}

function runningText(job) {
  const { step, steps, loss, eta_seconds } = job.progress;
  const lossText = typeof loss === "number" ? `, loss ${loss.toPrecision(3)}` : "";
  return steps ? `step ${step} of ${steps}${lossText}${aboutText(eta_seconds)}` : "starting";
}

function aboutText(seconds) {
  return seconds === null || seconds === undefined ? "" : `, about ${secondsText(seconds)} to go`;
}

export function secondsText(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

export function actionsView(job, index = 0) {
  if (isActive(job)) {
    return html`<p class="actions"><button type="button" class="quiet" @click=${() => cancel(job.id)}>Cancel</button></p>`;
  }
  if (isTraining(job)) return html`<p class="actions">${useButtons(job, 1)}</p>`;
  const isDrawn = tabOf(job.task) === "generate"; // from a seed
  return html`
    <p class="actions">
      <button type="button" class="quiet" title="Run it again with the same seed" @click=${() => rerun(job.id)}>Same again</button>
      ${isDrawn
        ? html`<button type="button" class="quiet" title="Run it again with another seed" @click=${() => rerun(job.id, { seed: -1 })}>Vary</button>`
        : nothing}
      ${job.images.length
        ? html`<button type="button" class="quiet" title="Start from this image" @click=${() => send(job, index, "img2img")}>To img2img</button>`
        : nothing}
    </p>
  `;
}

// Puts a finished image into the form as the input of another task, with its own settings where that task has them.
export function send(job, index, task) {
  state.shown = null;
  location.hash = "create";
  const image = `job:${job.id}/${index}`;
  if (tabOf(task) !== "generate" || tabOf(job.task) !== "generate") return startFrom(image, task);
  const changes = { image, seed: null, width: null, height: null, mask_image: null };
  return fill(job.receipt.parameters, { task, changes });
}
