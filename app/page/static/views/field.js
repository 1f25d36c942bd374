// One field of a request: its label, its description on demand, its widget, and why it was refused.

import { SLIDERS, labelOf } from "../fields.js";
import { setValue, valueAt } from "../form.js";
import { choicesOf, kindOf, rangeOf } from "../schema.js";
import { changed, state } from "../state.js";
import { listView, objectView, optionsView, pairsView } from "./entries.js";
import { examplesView } from "./examples-field.js";
import { html, live, nothing } from "./html.js";
import { imageView, imagesView } from "./image-field.js";
import { maskView } from "./mask-field.js";

const WIDGETS = {
  choice: choiceWidget,
  choices: choicesWidget,
  examples: examplesView,
  image: imageView,
  images: imagesView,
  json: jsonWidget,
  line: lineWidget,
  lines: linesWidget,
  list: listView,
  mask: maskView,
  number: numberWidget,
  object: objectView,
  options: optionsView,
  pairs: pairsView,
  text: textWidget,
  tuple: tupleWidget,
};
const WIDE = new Set(["text", "lines", "image", "images", "examples", "mask", "list", "object", "options", "pairs", "json", "choices", "tuple"]);

export function fieldId(path) {
  return `field-${path.replaceAll(".", "-")}`;
}

// `path` names the field in the request; `part` is its schema.
export function fieldView(path, name, part, placeholder = "") {
  const id = fieldId(path);
  const kind = kindOf(name, part);
  const errors = state.form.errors[path];
  const isHinted = state.form.hints.has(path);
  const described = [errors && `${id}-error`, isHinted && `${id}-hint`].filter(Boolean).join(" ") || nothing;
  const field = { id, path, name, part, placeholder, described, invalid: errors ? "true" : "false" };
  const isSlider = SLIDERS.has(name);
  return html`
    <div class="field" data-field=${path} ?data-wide=${WIDE.has(kind) || isSlider} ?data-refused=${errors}>
      <div class="head">
        <label for=${id} id="${id}-label">${labelOf(name)}</label>
        <button
          type="button"
          class="hint"
          aria-label="About ${labelOf(name)}"
          aria-expanded=${isHinted ? "true" : "false"}
          @click=${() => toggleHint(path)}
        >
          ?
        </button>
      </div>
      ${WIDGETS[kind](field)}
      ${isHinted ? html`<p class="note" id="${id}-hint">${hintView(name, part)}</p>` : nothing}
      ${errors ? html`<p class="error" id="${id}-error" role="alert">${errors.join("; ")}</p>` : nothing}
    </div>
  `;
}

function toggleHint(path) {
  const { hints } = state.form;
  if (!hints.delete(path)) hints.add(path);
  changed();
}

// Descriptions mark code with backticks.
function hintView(name, part) {
  const pieces = (part.description ?? "").split("`").map((piece, index) => (index % 2 ? html`<code>${piece}</code>` : piece));
  const range = rangeOf(part);
  return html`<code>${name}</code>: ${pieces}${range ? ` ${range}.` : ""}`;
}

function shownDefault(part) {
  const value = part.default;
  return value === null || value === undefined || typeof value === "object" ? "" : String(value);
}

function textWidget({ id, path, part, placeholder, described, invalid }) {
  return html`
    <textarea
      id=${id}
      rows=${path === "prompt" ? 3 : 2}
      maxlength=${part.maxLength ?? nothing}
      placeholder=${placeholder}
      aria-describedby=${described}
      aria-invalid=${invalid}
      .value=${live(valueAt(path) ?? "")}
      @input=${(event) => setValue(path, event.target.value || undefined)}
    ></textarea>
  `;
}

function lineWidget({ id, path, name, part, described, invalid }) {
  const isPreprocessor = name === "preprocess";
  const known = isPreprocessor ? state.preprocessors : [];
  const set = (value) => {
    setValue(path, value || undefined);
    if (isPreprocessor) setValue(`${path}_options`, undefined); // each has options of its own
  };
  return html`
    <datalist id="${id}-known">${known.map((one) => html`<option value=${one.id}>${one.title}</option>`)}</datalist>
    <input
      id=${id}
      list="${id}-known"
      placeholder=${shownDefault(part)}
      aria-describedby=${described}
      aria-invalid=${invalid}
      .value=${live(valueAt(path) ?? "")}
      @input=${(event) => set(event.target.value)}
    />
  `;
}

function numberWidget({ id, path, name, part, described, invalid }) {
  const step = part.type === "integer" ? (part.multipleOf ?? 1) : "any";
  const set = (event) => setNumber(path, event.target);
  const value = valueAt(path);
  const number = html`
    <input
      id=${id}
      type="number"
      inputmode="decimal"
      step=${step}
      placeholder=${shownDefault(part) || "auto"}
      aria-describedby=${described}
      aria-invalid=${invalid}
      .value=${live(value === undefined ? "" : String(value))}
      @input=${set}
    />
  `;
  if (!SLIDERS.has(name)) return number;
  const low = part.minimum ?? part.exclusiveMinimum ?? 0;
  return html`
    <div class="slider">
      <input
        type="range"
        aria-labelledby="${id}-label"
        min=${low}
        max=${part.maximum}
        step=${part.type === "integer" ? 1 : (part.maximum - low) / 100}
        .value=${live(String(value ?? part.default ?? low))}
        @input=${set}
      />
      ${number}
    </div>
  `;
}

function setNumber(path, input) {
  if (input.validity.badInput) {
    state.form.errors[path] = ["must be a number"];
    changed();
  } else {
    setValue(path, input.value === "" ? undefined : Number(input.value));
  }
}

function choiceWidget({ id, path, part, described, invalid }) {
  const choices = choicesOf(part);
  const value = valueAt(path);
  const index = choices.indexOf(value);
  const isRequired = part.default === undefined;
  return html`
    <select
      id=${id}
      aria-describedby=${described}
      aria-invalid=${invalid}
      @change=${(event) => setValue(path, choices[Number(event.target.value)])}
    >
      <option value="-1" .selected=${index < 0}>${isRequired ? "Choose…" : shownDefault(part) || "auto"}</option>
      ${choices.map((choice, place) =>
        choice === part.default ? nothing : html`<option value=${place} .selected=${place === index}>${choiceText(choice)}</option>`,
      )}
    </select>
  `;
}

function choiceText(choice) {
  if (typeof choice === "boolean") return choice ? "yes" : "no";
  return choice;
}

function choicesWidget({ id, path, part }) {
  const chosen = valueAt(path) ?? part.default ?? [];
  const toggle = (choice) => {
    const next = part.items.enum.filter((one) => (one === choice ? !chosen.includes(one) : chosen.includes(one)));
    setValue(path, next);
  };
  return html`
    <div class="choices" role="group" aria-labelledby="${id}-label" id=${id} tabindex="-1">
      ${part.items.enum.map(
        (choice) => html`
          <label><input type="checkbox" .checked=${live(chosen.includes(choice))} @change=${() => toggle(choice)} />${choice}</label>
        `,
      )}
    </div>
  `;
}

function tupleWidget({ id, path, part, described, invalid }) {
  const value = valueAt(path);
  const set = (index, input) => {
    const next = [...(value ?? part.prefixItems.map(() => null))];
    next[index] = input.value === "" ? null : Number(input.value);
    setValue(path, next.every((one) => one === null) ? undefined : next);
  };
  return html`
    <div class="tuple" role="group" aria-labelledby="${id}-label">
      ${part.prefixItems.map(
        (_, index) => html`
          <input
            id=${index ? `${id}-${index}` : id}
            type="number"
            aria-label="${labelOf(path)} ${index + 1}"
            aria-describedby=${described}
            aria-invalid=${invalid}
            placeholder="auto"
            .value=${live(String(value?.[index] ?? ""))}
            @input=${(event) => set(index, event.target)}
          />
        `,
      )}
    </div>
  `;
}

// A list of texts, each on a line of its own.
function linesWidget({ id, path, described, invalid }) {
  return html`
    <textarea
      id=${id}
      rows="2"
      placeholder="One on each line"
      aria-describedby=${described}
      aria-invalid=${invalid}
      .value=${live((valueAt(path) ?? []).join("\n"))}
      @input=${(event) => setValue(path, event.target.value ? event.target.value.split("\n") : undefined)}
    ></textarea>
  `;
}

// For kinds of fields that this page knows no widget for.
function jsonWidget({ id, path, described, invalid }) {
  const set = (event) => {
    try {
      setValue(path, event.target.value ? JSON.parse(event.target.value) : undefined);
    } catch {
      state.form.errors[path] = ["must be JSON"];
      changed();
    }
  };
  const value = valueAt(path);
  return html`
    <textarea
      id=${id}
      rows="2"
      placeholder="JSON"
      spellcheck="false"
      aria-describedby=${described}
      aria-invalid=${invalid}
      .value=${value === undefined ? "" : JSON.stringify(value)}
      @change=${set}
    ></textarea>
  `;
}
