// A field that takes an image: dropped, pasted or chosen as a file.

import { setValue, valueAt } from "../form.js";
import { firstFile, inputOf, uploadFor } from "../inputs.js";
import { changed, state } from "../state.js";
import { html, nothing } from "./html.js";

export function imageView({ id, path, name, described, invalid }) {
  const reference = valueAt(path);
  const input = inputOf(reference);
  return html`
    <div class="drop" data-image=${path} @dragover=${allow} @drop=${(event) => takeDropped(event, path)}>
      ${reference === undefined ? html`<p>Drop or paste an image</p>` : shownView(reference, input)}
      ${buttonsView({ id, path, name, described, invalid })}
    </div>
  `;
}

// A list of images: those that are there, and, while more may come, an empty place for the next.
export function imagesView({ id, path, name, part, described, invalid }) {
  const count = valueAt(path)?.length ?? 0;
  const places = Math.min(count + 1, part.maxItems ?? Infinity);
  const entry = (index) => {
    const place = `${path}.${index}`;
    const errors = state.form.errors[place];
    return html`
      <div id="${id}-${index}">${imageView({ id: index ? `${id}-file-${index}` : id, path: place, name, described, invalid })}</div>
      ${errors ? html`<p class="error" role="alert">${errors.join("; ")}</p>` : nothing}
    `;
  };
  return html`<div class="list" role="group" aria-labelledby="${id}-label">${Array.from({ length: places }, (_, index) => entry(index))}</div>`;
}

export function shownView(reference, input) {
  if (!input) return html`<p class="note">${reference.slice(0, 24)}… (cannot be shown here)</p>`;
  return html`<img src=${input.url} alt="The input: ${input.name}" />`;
}

export function buttonsView({ id, path, described, invalid }) {
  return html`
    <p class="buttons">
      <label class="quiet button"
        >${state.form.uploading.has(path) ? "Uploading…" : "Choose a file"}<input
          id=${id}
          type="file"
          class="hidden"
          accept="image/*"
          aria-describedby=${described}
          aria-invalid=${invalid}
          @change=${(event) => takeChosen(event, path)}
      /></label>
      ${valueAt(path) === undefined
        ? nothing
        : html`<button type="button" class="quiet" @click=${() => setValue(path, undefined)}>Remove</button>`}
    </p>
  `;
}

export function allow(event) {
  event.preventDefault();
  event.stopPropagation();
  state.dropping = false;
  changed();
}

export function takeDropped(event, path) {
  event.preventDefault();
  event.stopPropagation();
  const file = firstFile(event.dataTransfer);
  if (file) takeFile(file, path);
}

function takeChosen(event, path) {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) takeFile(file, path);
}

export function takeFile(file, path) {
  const { values } = state.form; // of the tab that is shown now, also if another one is when the upload ends
  const fail = (message) => {
    state.form.errors[path] = [message];
    changed();
  };
  return uploadFor(path, file, (id) => setValue(path, id, values), fail);
}
