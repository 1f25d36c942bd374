// Files that are dropped on the page, pasted or opened: into the form's image, or for the parameters inside them.

import { addFiles } from "./examples.js";
import { currentSchema, fill, setValue, valueAt } from "./form.js";
import { parametersOf } from "./metadata.js";
import { firstFile, uploadFor } from "./inputs.js";
import { changed, say, state } from "./state.js";

// Fills the form with the parameters inside a file.
export async function readFile(file) {
  const parameters = await parametersOf(file);
  if (parameters === null) return say(`${file.name} has no parameters inside. Drop it on an image field to use it as an input.`);
  await fill(parameters);
}

// Outside the image fields, a dropped file gives its parameters, and a pasted one is the first image that is missing.
export function takeFiles() {
  let depth = 0;
  const setDropping = (isDropping) => {
    state.dropping = isDropping;
    changed();
  };
  addEventListener("dragenter", (event) => {
    depth += 1;
    if (event.dataTransfer.types.includes("Files")) setDropping(true);
  });
  addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) setDropping(false);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener(
    "drop",
    () => {
      depth = 0;
      setDropping(false);
    },
    { capture: true },
  );
  addEventListener("drop", (event) => {
    event.preventDefault();
    const file = firstFile(event.dataTransfer);
    if (file) readFile(file);
  });
  addEventListener("paste", (event) => {
    const file = firstFile(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    if (state.form.tab === "train") return addFiles([file]);
    const path = missingImage();
    if (path === null) return readFile(file);
    uploadFor(path, file, (id) => setValue(path, id), say);
  });
}

function missingImage() {
  const { properties = {} } = currentSchema() ?? {};
  if ("image" in properties && valueAt("image") === undefined && !("controls" in properties || "references" in properties)) return "image";
  const index = (valueAt("controls") ?? []).findIndex((control) => control.image === undefined);
  if ("controls" in properties && index >= 0) return `controls.${index}.image`;
  if ("references" in properties && valueAt("references") === undefined) return "references.0";
  return "image" in properties ? "image" : null;
}
