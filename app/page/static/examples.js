// Images to learn from: files are uploaded, and captions and control images are found by their names, as in the zip
// file that a training may be sent instead.

import { Away, Problem } from "./api.js";
import { setValue, valueAt } from "./form.js";
import { upload } from "./inputs.js";
import { changed, say, state } from "./state.js";

const PATH = "images";
const CONTROL = ".control"; // NAME.control.png is the control image of NAME.png

// How many of the chosen images are uploaded: null while none is on its way.
export let uploads = null;

// Takes images, text files beside them and zip files, as a person has chosen them.
export async function addFiles(files) {
  const archive = files.find((file) => /\.zip$/i.test(file.name));
  if (archive !== undefined) return setArchive(archive, files.length);
  const groups = grouped(files);
  const wrong = groups.find((group) => group.image === undefined || group.problem);
  if (wrong) return fail(`${wrong.name} ${wrong.problem ?? "has no image of its name; choose both together."}`);
  state.form.archive = null;
  await sendAll(groups);
}

export function removeArchive() {
  state.form.archive = null;
  changed();
}

function setArchive(archive, count) {
  if (count > 1) return fail("Choose either one zip file or images.");
  setValue(PATH, undefined); // the file has them all
  state.form.archive = archive;
  changed();
}

// Files that belong together: [{ name, image, control, caption }], by name.
function grouped(files) {
  const groups = new Map();
  for (const file of [...files].sort((one, other) => one.name.localeCompare(other.name))) {
    const name = file.name.replace(/\.[^.]*$/, "");
    const isControl = name.endsWith(CONTROL);
    const stem = isControl ? name.slice(0, -CONTROL.length) : name;
    const role = /\.txt$/i.test(file.name) ? "caption" : isControl ? "control" : "image";
    const group = groups.get(stem) ?? { name: file.name };
    if (group[role]) group.problem = `and ${file.name} differ in their ending alone; rename one.`;
    else if (role === "image") group.name = file.name;
    group[role] ??= file;
    groups.set(stem, group);
  }
  return [...groups.values()];
}

async function sendAll(groups) {
  const { values, uploading } = state.form;
  uploading.add(PATH);
  uploads = { done: 0, count: groups.length };
  changed();
  try {
    for (const group of groups) {
      const example = await send(group);
      setValue(PATH, [...(values[PATH] ?? []), example], values);
      uploads.done += 1;
    }
    say(`${groups.length} ${groups.length === 1 ? "image is" : "images are"} uploaded.`);
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
    fail(`${groups[uploads.done].name}: ${error.fields?.[0]?.message ?? error.message}`);
  } finally {
    uploads = null;
    uploading.delete(PATH);
    changed();
  }
}

async function send({ image, control, caption }) {
  const example = { image: (await upload(image)).id };
  if (control !== undefined) example.conditioning_image = (await upload(control)).id;
  const text = (await caption?.text())?.trim();
  return text ? { ...example, caption: text } : example;
}

function fail(message) {
  state.form.errors[PATH] = [message];
  changed();
}
