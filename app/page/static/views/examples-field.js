// The field of the images to learn from: dropped or chosen together, each with its caption; or one zip file of them.

import { addFiles, removeArchive, uploads } from "../examples.js";
import { setValue, valueAt } from "../form.js";
import { inputOf } from "../inputs.js";
import { state } from "../state.js";
import { fieldId } from "./field.js";
import { html, live, nothing } from "./html.js";
import { allow, imageView, shownView } from "./image-field.js";
import { bytesText } from "./service.js";

export function examplesView({ id, path, part, described, invalid }) {
  const examples = valueAt(path) ?? [];
  const isPaired = "conditioning_image" in part.items.properties;
  const { archive } = state.form;
  return html`
    <div class="list" role="group" aria-labelledby="${id}-label">
      <div class="drop" data-image=${path} @dragover=${allow} @drop=${takeDropped}>
        <p>${archive ? `${archive.name}, ${bytesText(archive.size)}` : howTo(isPaired)}</p>
        <p class="buttons">
          <label class="quiet button"
            >${uploads ? `Uploading, ${uploads.done} of ${uploads.count}…` : "Choose files"}<input
              id=${id}
              type="file"
              multiple
              class="hidden"
              accept="image/*,.txt,.zip"
              ?disabled=${uploads !== null}
              aria-describedby=${described}
              aria-invalid=${invalid}
              @change=${takeChosen}
          /></label>
          ${archive ? html`<button type="button" class="quiet" @click=${removeArchive}>Remove the zip file</button>` : nothing}
          ${examples.length ? html`<button type="button" class="quiet" @click=${() => setValue(path, undefined)}>Remove all</button>` : nothing}
        </p>
      </div>
      ${examples.map((example, index) => exampleView(`${path}.${index}`, example, index + 1, isPaired))}
    </div>
  `;
}

function howTo(isPaired) {
  if (isPaired) return "Drop images with their control images (3.png and 3.control.png), or one zip file";
  return "Drop images, with captions in text files if you have them (3.jpg and 3.txt), or one zip file";
}

function exampleView(path, example, number, isPaired) {
  const caption = `${path}.caption`;
  const errors = Object.entries(state.form.errors).filter(([one]) => one === path || one.startsWith(`${path}.`));
  const messages = errors.flatMap(([, texts]) => texts).join("; ");
  const control = `${path}.conditioning_image`;
  return html`
    <div class="entry example" role="group" id=${fieldId(path)} tabindex="-1" aria-label="Image ${number}">
      ${shownView(example.image, inputOf(example.image))}
      <div>
        <input
          id=${fieldId(caption)}
          aria-label="Caption of image ${number}"
          aria-invalid=${messages ? "true" : "false"}
          aria-describedby=${messages ? `${fieldId(path)}-error` : nothing}
          placeholder=${state.form.values.instance_prompt ?? "Caption"}
          .value=${live(example.caption ?? "")}
          @input=${(event) => setValue(caption, event.target.value || undefined)}
        />
        ${isPaired || example.conditioning_image ? html`<p class="note">Its control image</p>${controlView(control)}` : nothing}
        <button type="button" class="quiet" @click=${() => setValue(path, undefined)}>Remove image ${number}</button>
      </div>
      ${messages ? html`<p class="error" id="${fieldId(path)}-error" role="alert">${messages}</p>` : nothing}
    </div>
  `;
}

function controlView(path) {
  return imageView({ id: fieldId(path), path, name: "conditioning_image", described: nothing, invalid: "false" });
}

function takeChosen(event) {
  const files = [...event.target.files];
  event.target.value = "";
  if (files.length) addFiles(files);
}

function takeDropped(event) {
  event.preventDefault();
  event.stopPropagation();
  const files = [...event.dataTransfer.files];
  if (files.length && uploads === null) addFiles(files);
}
