// Input images: uploads of files, and where the page shows an image from that a request names.

import { Away, Problem, call, local } from "./api.js";
import { changed, say, state } from "./state.js";

// Uploads a file; its answer has the `id` by which requests name it.
export async function upload(file) {
  const found = await call("POST", "v1/uploads", {
    body: file,
    headers: { "content-type": file.type || "application/octet-stream" },
  });
  const old = state.inputs.get(found.id);
  if (old === undefined) {
    const { width, height } = found;
    state.inputs.set(found.id, { url: URL.createObjectURL(file), width, height, name: file.name ?? "mask" });
  }
  return found;
}

// Uploads a file for a field. `set` takes its id, `fail` a message.
export async function uploadFor(path, file, set, fail) {
  const { uploading } = state.form;
  uploading.add(path);
  changed();
  try {
    set((await upload(file)).id);
    say(`${file.name} is uploaded.`);
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
    fail(error.fields?.[0]?.message ?? error.message);
  } finally {
    uploading.delete(path);
    changed();
  }
}

// What is known of an image that a field names: { url, width, height, name }; undefined where it cannot be shown.
export function inputOf(reference) {
  const found = /^job:([^/]+)\/(\d+)$/.exec(reference ?? "");
  if (!found) return state.inputs.get(reference);
  const image = state.jobs.get(found[1])?.images[Number(found[2])];
  return image && { ...image, url: local(image.url), name: "a finished image" };
}

export function firstFile(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);
}
