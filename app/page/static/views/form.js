// The form of a request: task, model, and the fields that the model's schema has for them.

import { grouped } from "../fields.js";
import { chooseModel, chooseTask, currentModel, currentSchema, schemaFields, submit } from "../form.js";
import { readFile } from "../intake.js";
import { changed } from "../state.js";
import { fieldId, fieldView } from "./field.js";
import { html, nothing } from "./html.js";

const TASKS = { txt2img: "From text", img2img: "From image", inpaint: "Inpaint", controlnet: "Control", edit: "Edit" };

export function formView(state) {
  const { form } = state;
  if (!state.models.length) return html`<p class="note">${state.away ? "" : "Reading the models…"}</p>`;
  return html`
    <form class="request" novalidate @submit=${send} @keydown=${sendByKey}>
      ${tasksView(form)} ${modelView(state)} ${currentSchema() ? groupsView(form) : html`<p class="note">Reading the fields…</p>`}
      <footer>
        ${form.problem ? html`<p class="error" role="alert">${form.problem}</p>` : nothing} ${errorsView(form)}
        <button class="primary" ?disabled=${form.sending || form.uploading.size > 0 || !currentSchema()}>
          ${form.sending ? "Sending…" : "Generate"}
        </button>
        <label class="quiet button" title="Fill the form with the parameters inside an image">
          From a file<input type="file" class="hidden" accept="image/*" @change=${readChosen} />
        </label>
      </footer>
    </form>
  `;
}

function tasksView(form) {
  const tasks = currentModel()?.tasks ?? [];
  return html`
    <fieldset class="tasks">
      <legend class="hidden">Task</legend>
      ${tasks.map(
        (task) => html`
          <label>
            <input type="radio" name="task" .checked=${task === form.task} @change=${() => chooseTask(task)} />
            <span>${TASKS[task] ?? task}</span>
          </label>
        `,
      )}
    </fieldset>
  `;
}

function modelView(state) {
  return html`
    <div class="field">
      <label for="model">Model</label>
      <select id="model" @change=${(event) => chooseModel(event.target.value)}>
        ${state.models.map(
          (model) => html`
            <option value=${model.id} .selected=${model.id === state.form.model}>
              ${model.title || model.id}${model.warm ? " · warm" : ""}
            </option>
          `,
        )}
      </select>
    </div>
  `;
}

function groupsView(form) {
  const fields = schemaFields();
  const view = (names) => names.map((name) => fieldView(name, name, fields[name], placeholders(name)));
  return grouped(Object.keys(fields)).map(([group, names]) => {
    if (!group.title) return html`<div class="group" id="group-${group.id}">${view(names)}</div>`;
    const errors = Object.keys(form.errors).some((path) => names.includes(path.split(".")[0]));
    const count = names.filter((name) => isSet(form.values[name])).length;
    return html`
      <details id="group-${group.id}" ?open=${errors || form.open.has(group.id)} @toggle=${toggle(form, group.id)}>
        <summary>${group.title}${count ? html` <span class="count">${count} set</span>` : nothing}</summary>
        <div class="group">${view(names)}</div>
      </details>
    `;
  });
}

function isSet(value) {
  return value !== undefined && !(Array.isArray(value) && value.length === 0);
}

function placeholders(name) {
  return name === "prompt" ? currentModel().prompt_hint : "";
}

function toggle(form, id) {
  return (event) => {
    if (event.target.open) form.open.add(id);
    else form.open.delete(id);
    changed();
  };
}

// Links to the fields that were refused: on a phone they are far from the button.
function errorsView(form) {
  const paths = Object.keys(form.errors).filter((path) => path.split(".")[0] in schemaFields());
  if (!paths.length) return nothing;
  return html`
    <p class="error" id="refused">
      Refused: ${paths.map((path, index) => html`${index ? ", " : ""}<a href="#${fieldId(path)}">${path}</a>`)}
    </p>
  `;
}

async function send(event) {
  event.preventDefault();
  await submit();
  requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector("[aria-invalid=true]")?.focus()));
}

function sendByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
}

function readChosen(event) {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) readFile(file);
}
