// Fields with fields inside: lists of objects (LoRAs, controls), one object (webhook), pairs of text (metadata).

import { labelOf } from "../fields.js";
import { currentSchema, setValue, valueAt } from "../form.js";
import { propertiesOf } from "../schema.js";
import { state } from "../state.js";
import { fieldView } from "./field.js";
import { html, live, nothing } from "./html.js";

export function listView({ id, path, name, part }) {
  const entries = valueAt(path) ?? [];
  const one = labelOf(name).replace(/s$/, "");
  const without = (index) => entries.filter((_, place) => place !== index);
  const setEntries = (next) => setValue(path, next.length ? next : undefined);
  return html`
    <div class="list" role="group" aria-labelledby="${id}-label" id=${id} tabindex="-1">
      ${entries.map(
        (_, index) => html`
          <fieldset class="entry">
            <legend>${one} ${index + 1}</legend>
            ${entryFields(`${path}.${index}`, part.items)}
            <button type="button" class="quiet" @click=${() => setEntries(without(index))}>Remove ${one} ${index + 1}</button>
          </fieldset>
        `,
      )}
      ${entries.length < (part.maxItems ?? Infinity)
        ? html`<button type="button" class="quiet add" @click=${() => setEntries([...entries, firstOf(part.items)])}>Add ${one}</button>`
        : nothing}
    </div>
  `;
}

// A new entry names the first of what its required fields may name.
function firstOf(part) {
  const parts = propertiesOf(part, currentSchema());
  const required = (part.required ?? []).filter((name) => parts[name].enum);
  return Object.fromEntries(required.map((name) => [name, parts[name].enum[0]]));
}

export function objectView({ id, path, name, part }) {
  const isSet = valueAt(path) !== undefined;
  return html`
    <div class="list" role="group" aria-labelledby="${id}-label" id=${id} tabindex="-1">
      ${isSet ? html`<div class="entry">${entryFields(path, part)}</div>` : nothing}
      <button type="button" class="quiet add" @click=${() => setValue(path, isSet ? undefined : {})}>
        ${isSet ? "Remove" : "Add"} ${labelOf(name)}
      </button>
    </div>
  `;
}

// The options of the preprocessor that the field beside this one names.
export function optionsView({ id, path }) {
  const name = valueAt(path.replace(/_options$/, ""));
  const options = state.preprocessors.find((one) => one.id === name)?.options ?? [];
  return html`
    <div class="list" role="group" aria-labelledby="${id}-label" id=${id} tabindex="-1">
      ${options.length
        ? html`<div class="entry">${options.map((option) => fieldView(`${path}.${option.id}`, option.id, option))}</div>`
        : html`<p class="note">A preprocessor has options.</p>`}
    </div>
  `;
}

function entryFields(path, part) {
  const parts = propertiesOf(part, currentSchema());
  return Object.entries(parts).map(([name, inner]) => fieldView(`${path}.${name}`, name, inner));
}

export function pairsView({ id, path, part }) {
  const pairs = Object.entries(valueAt(path) ?? {});
  const set = (next) => setValue(path, next.length ? Object.fromEntries(next) : undefined);
  const change = (index, place, text) => set(pairs.map((pair, row) => (row === index ? pair.with(place, text) : pair)));
  return html`
    <div class="list" role="group" aria-labelledby="${id}-label" id=${id} tabindex="-1">
      ${pairs.map(
        ([name, text], index) => html`
          <div class="pair">
            <input aria-label="Name ${index + 1}" .value=${live(name)} @change=${(event) => change(index, 0, event.target.value)} />
            <input aria-label="Value ${index + 1}" .value=${live(text)} @change=${(event) => change(index, 1, event.target.value)} />
            <button
              type="button"
              class="quiet"
              aria-label="Remove ${name || "pair"}"
              @click=${() => set(pairs.filter((_, row) => row !== index))}
            >
              ×
            </button>
          </div>
        `,
      )}
      ${pairs.length < (part.maxProperties ?? Infinity)
        ? html`<button type="button" class="quiet add" @click=${() => set([...pairs, [`name ${pairs.length + 1}`, ""]])}>Add pair</button>`
        : nothing}
    </div>
  `;
}
