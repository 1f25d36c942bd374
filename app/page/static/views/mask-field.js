// The field of the mask: painted over the image with a brush, by pointer or keyboard, or taken from a file.

import { setValue, valueAt } from "../form.js";
import { PAINTED, maskOf } from "../mask.js";
import { inputOf } from "../inputs.js";
import { changed, state } from "../state.js";
import { html, nothing } from "./html.js";
import { buttonsView, imageView } from "./image-field.js";
import "./mask-brush.js";

const brush = { share: 15, erases: false }; // width in percent of the image's shorter side

export function maskView(field) {
  const { path, id } = field;
  const value = valueAt(path);
  const input = inputOf(valueAt("image"));
  if (!input || (value !== undefined && value !== PAINTED)) {
    return html`${input ? nothing : html`<p class="note">Choose the image first to paint on it.</p>`}${imageView(field)}`;
  }
  const { tab } = state.form;
  const mask = maskOf(tab);
  const painted = () => setValue(path, mask.isEmpty ? undefined : PAINTED);
  const edit = (change) => () => {
    change();
    painted();
  };
  return html`
    <div class="drop mask">
      <mask-brush
        .mask=${mask}
        .input=${{ ...input, key: valueAt("image") }}
        .brush=${{ ...brush }}
        .revision=${`${tab} ${mask.revision}`}
        @painted=${painted}
      ></mask-brush>
      <div class="brush" role="group" aria-label="Brush">
        <label>
          Size
          <input type="range" min="2" max="60" .value=${String(brush.share)} @input=${(event) => setBrush({ share: Number(event.target.value) })} />
        </label>
        <label><input type="checkbox" .checked=${brush.erases} @change=${(event) => setBrush({ erases: event.target.checked })} />Erase</label>
        <button type="button" class="quiet" @click=${edit(() => mask.undo())}>Undo</button>
        <button type="button" class="quiet" @click=${edit(() => mask.invert())}>Invert</button>
        <button type="button" class="quiet" @click=${edit(() => mask.clear())}>Clear</button>
      </div>
      <p class="note">Paint what is to be ${tab === "erase" ? "erased" : "regenerated"}. By keyboard: arrows move the brush, the space bar paints.</p>
      ${buttonsView({ ...field, id })}
    </div>
  `;
}

function setBrush(change) {
  Object.assign(brush, change);
  changed();
}
