// One image in full, or one training, with its receipt, in a dialog.

import { local } from "../api.js";
import { fill } from "../form.js";
import { isActive, isTraining, remove } from "../jobs.js";
import { changed, state } from "../state.js";
import { shownTabs } from "../tabs.js";
import { actionsView, promptOf, secondsText, send, summaryOf } from "./gallery.js";
import { html, nothing } from "./html.js";
import { trainingFigure, trainingRows, useButtons } from "./training.js";

// Opens what the state says is shown: a dialog keeps the keyboard inside only if a script opens it.
export function openDialogs({ shown }) {
  const dialog = document.querySelector("dialog.detail");
  if (dialog && shown && !dialog.open) dialog.showModal();
}

export function detailView({ shown, jobs }) {
  const job = shown && jobs.get(shown.id);
  const image = job?.images[shown.index];
  if (!image && !(job && isTraining(job))) return nothing;
  return html`
    <dialog class="detail" aria-label=${isTraining(job) ? "Training and receipt" : "Image and receipt"} @close=${close} @click=${closeOutside} @keydown=${(event) => turn(event, job)}>
      <div class="sheet">
        ${isTraining(job) ? trainingFigure(job, promptOf(job)) : imageFigure(job, image, shown.index)}
        <div class="facts">
          <button type="button" class="quiet close" autofocus aria-label="Close" @click=${close}>×</button>
          <h2>${promptOf(job)}</h2>
          <p class="note">${summaryOf(job)}${Number.isInteger(image?.seed) ? ` · seed ${image.seed}` : ""}</p>
          ${isTraining(job) ? trainingActions(job) : imageActions(job, image, shown.index)} ${receiptView(job)}
        </div>
      </div>
    </dialog>
  `;
}

function imageFigure(job, image, index) {
  return html`
    <figure>
      <img src=${local(image.url)} alt=${promptOf(job)} width=${image.width} height=${image.height} />
      ${job.images.length > 1 ? stripView(job, index) : nothing}
    </figure>
  `;
}

function imageActions(job, image, index) {
  const tabs = shownTabs();
  const sendTo = (task) => html`<button type="button" class="quiet" @click=${() => send(job, index, task)}>To ${task}</button>`;
  return html`
    ${actionsView(job, index)}
    <p class="actions">
      ${sendTo("inpaint")} ${["upscale", "erase"].filter((tab) => tabs.includes(tab)).map(sendTo)}
      <button type="button" class="quiet" @click=${() => reuse(job)}>Use settings</button>
      <a class="quiet button" href=${local(image.url)} download="${job.id}-${index}.${image.format}">Download</a>
      ${removeView(job)}
    </p>
  `;
}

function trainingActions(job) {
  if (isActive(job)) return actionsView(job);
  return html`
    <p class="actions">
      ${useButtons(job)}
      ${job.receipt ? html`<button type="button" class="quiet" @click=${() => reuse(job)}>Use settings</button>` : nothing} ${removeView(job)}
    </p>
  `;
}

function stripView(job, index) {
  const pick = (place) => () => {
    state.shown = { id: job.id, index: place };
    changed();
  };
  return html`
    <div class="strip">
      ${job.images.map(
        (image, place) => html`
          <button type="button" aria-label="Image ${place + 1}" aria-pressed=${place === index ? "true" : "false"} @click=${pick(place)}>
            <img src=${local(image.url)} alt="" />
          </button>
        `,
      )}
    </div>
  `;
}

function removeView(job) {
  if (state.confirming === job.id) {
    return html`<button type="button" class="danger" @click=${() => remove(job.id)}>Delete job and images</button>`;
  }
  const ask = () => {
    state.confirming = job.id;
    changed();
  };
  return html`<button type="button" class="quiet" @click=${ask}>Delete…</button>`;
}

function receiptView({ receipt, id }) {
  if (!receipt) return nothing;
  const files = [receipt.model, ...receipt.loras, ...receipt.controlnets];
  const placement = Object.entries(receipt.placement).map(([part, place]) => `${part}: ${place}`);
  return html`
    <h3>Receipt</h3>
    <dl class="receipt">
      ${rowsOf(receipt).filter(isShown).map(([name, value]) => rowView(name, textOf(value)))}
      ${files.map((file) => rowView(file.id, `sha256 ${shortHash(file.sha256)}`))}
      ${rowView("placement", `${placement.join(", ")}; ${receipt.memory?.plan ?? ""}`)}
      ${receipt.deviations.map((text) => rowView("deviation", text))}
      ${Object.entries(receipt.timings).map(([stage, seconds]) => rowView(stage, secondsText(seconds), seconds, receipt))}
      ${rowView("made by", Object.entries(receipt.versions).map(([name, version]) => `${name} ${version}`).join(", "))}
      ${rowView("job", id)}
    </dl>
    <details><summary>As JSON</summary><pre tabindex="0">${JSON.stringify(receipt, null, 2)}</pre></details>
  `;
}

function rowsOf(receipt) {
  return receipt.training ? trainingRows(receipt) : Object.entries(receipt.parameters);
}

function isShown([name, value]) {
  return name !== "prompt" && value !== null && !(Array.isArray(value) && !value.length) && name !== "input_images";
}

// Files and inputs are named by hashes; the JSON has them in full.
function shortHash(text) {
  return text.replace(/([0-9a-f]{12})[0-9a-f]{52}/, "$1…");
}

function textOf(value) {
  if (!Array.isArray(value)) return shortHash(String(value));
  return value.map((one) => (typeof one === "object" ? `${one.name ?? one.controlnet} ${one.scale ?? one.conditioning_scale}` : one)).join(", ");
}

// A stage's time has a bar: its share of the longest one.
function rowView(name, text, seconds, receipt) {
  const longest = receipt && Math.max(...Object.values(receipt.timings));
  return html`
    <div>
      <dt>${name}</dt>
      <dd>${text}${seconds === undefined ? nothing : html`<meter max=${longest || 1} .value=${seconds} aria-hidden="true"></meter>`}</dd>
    </div>
  `;
}

function reuse(job) {
  close();
  location.hash = "create";
  return fill(job.receipt.parameters);
}

function turn(event, job) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const index = state.shown.index + by;
  if (!by || !job.images[index]) return;
  state.shown = { id: job.id, index };
  changed();
}

function closeOutside(event) {
  if (event.target === event.currentTarget) close();
}

function close() {
  state.shown = state.confirming = null;
  changed();
}
