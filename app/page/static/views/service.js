// The service: the queue as one's own jobs see it, the workers, and the models.

import { isActive, jobsNewestFirst } from "../jobs.js";
import { promptOf, summaryOf } from "./gallery.js";
import { html, nothing, repeat } from "./html.js";

export function serviceView(state) {
  return html`
    ${queueView(jobsNewestFirst().filter(isActive).reverse())} ${state.workers ? workersView(state) : nothing} ${modelsView(state.models)}
  `;
}

function queueView(jobs) {
  return html`
    <h2>Queue</h2>
    ${jobs.length ? nothing : html`<p class="note">None of your jobs is waiting or running.</p>`}
    <ol class="rows">
      ${repeat(jobs, (job) => job.id, (job) => html`
        <li data-status=${job.status}><b>${promptOf(job)}</b><span class="note">${summaryOf(job)}</span></li>
      `)}
    </ol>
  `;
}

function workersView({ workers }) {
  return html`
    <h2>Workers</h2>
    ${workers.length ? nothing : html`<p class="note">No worker is running; jobs wait for one.</p>`}
    <ul class="rows">
      ${repeat(workers, (worker) => worker.id, workerView)}
    </ul>
  `;
}

function workerView(worker) {
  const used = worker.resident_bytes ?? 0;
  const jobs = worker.current_jobs?.length ?? 0;
  const state = worker.state === "busy" ? `busy, ${jobs} ${jobs === 1 ? "job" : "jobs"}` : worker.state;
  return html`
    <li>
      <b>${worker.id} <span class="state" data-state=${worker.state}>${state}</span></b>
      ${worker.reason ? html`<span class="error">${worker.reason}</span>` : nothing}
      <span class="note">${worker.device} · ${bytesText(used)}${worker.budget_bytes ? ` of ${bytesText(worker.budget_bytes)}` : ""}</span>
      ${worker.budget_bytes
        ? html`<meter max=${worker.budget_bytes} .value=${used} aria-label="Device memory of ${worker.id}"></meter>`
        : nothing}
    </li>
  `;
}

function modelsView(models) {
  return html`
    <h2>Models</h2>
    <ul class="rows">
      ${repeat(models, (model) => model.id, (model) => html`
        <li>
          <b>${model.title || model.id} <span class="state" data-state=${stateOf(model)}>${stateOf(model)}</span></b>
          <span class="note">${model.id} · ${model.family}${preparingText(model)}</span>
        </li>
      `)}
    </ul>
  `;
}

function stateOf(model) {
  if (model.warm) return "warm";
  return model.ready ? "cold" : "absent";
}

function preparingText({ preparing }) {
  if (!preparing) return "";
  const { state, bytes_done, bytes_total } = preparing;
  return ` · ${state}${bytes_total ? ` ${bytesText(bytes_done ?? 0)} of ${bytesText(bytes_total)}` : ""}`;
}

export function bytesText(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 2 ** (10 * power);
  return `${value < 10 && power ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
