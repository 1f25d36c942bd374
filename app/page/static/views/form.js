// The form of a request: its tab, task and model, and the fields that the model's schema has for them.

import { grouped } from "../fields.js";
import {
  chooseModel,
  chooseTab,
  chooseTask,
  currentModel,
  currentSchema,
  currentTasks,
  schemaFields,
  submit,
} from "../form.js";
import { readFile } from "../intake.js";
import { changed } from "../state.js";
import { TABS, shownTabs } from "../tabs.js";
import { fieldId, fieldView } from "./field.js";
import { html, live, nothing } from "./html.js";

export function formView(state) {
  const { form } = state;
  if (!state.models.length) return html`<p class="note">${state.away ? "" : "Reading the models…"}</p>`;
  return html`
    <form class="request" novalidate @submit=${send} @keydown=${sendByKey}>
      ${tabsView(form)} ${tasksView(form)} ${modelView(form)} ${currentSchema() ? groupsView(form) : html`<p class="note">Reading the fields…</p>`}
      <footer>
        ${form.problem ? html`<p class="error" role="alert">${form.problem}</p>` : nothing} ${errorsView(form)}
        <button class="primary" ?disabled=${form.sending || form.uploading.size > 0 || !currentSchema()}>
          ${form.sending ? "Sending…" : TABS[form.tab].title}
        </button>
        ${form.tab === "generate"
          ? html`
              <label class="quiet button" title="Fill the form with the parameters inside an image">
                From a file<input type="file" class="hidden" accept="image/*" @change=${readChosen} />
              </label>
            `
          : nothing}
      </footer>
    </form>
  `;
}

function tabsView(form) {
  const tabs = shownTabs();
  if (tabs.length < 2) return nothing;
  return choiceView("tab", "What to do", tabs, form.tab, (tab) => TABS[tab].title, chooseTab);
}

function tasksView(form) {
  const tasks = currentTasks();
  if (tasks.length < 2 && form.tab !== "generate") return nothing;
  const legend = form.tab === "train" ? "Kind of training" : "Task";
  return choiceView("task", legend, tasks, form.task, (task) => TABS[form.tab].labels[task] ?? task, chooseTask);
}

function choiceView(name, legend, choices, chosen, label, choose) {
  return html`
    <fieldset class="tasks">
      <legend class="hidden">${legend}</legend>
      ${choices.map(
        (choice) => html`
          <label>
            <input type="radio" name=${name} .checked=${live(choice === chosen)} @change=${() => choose(choice)} />
            <span>${label(choice)}</span>
          </label>
        `,
      )}
    </fieldset>
  `;
}

function modelView(form) {
  return html`
    <div class="field">
      <label for="model">${TABS[form.tab].modelLabel}</label>
      <select id="model" @change=${(event) => chooseModel(event.target.value)}>
        ${TABS[form.tab].models().map(
          (model) => html`
            <option value=${model.id} .selected=${model.id === form.model}>
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
