// The parameters inside an image file: Darkroom's own JSON, or the line that AUTOMATIC1111's web UI writes.
// Reads PNG text chunks (PNG specification, third edition, 11.3.3), and EXIF of JPEG and WebP. Runs nothing of a file.

import { readInfotext } from "./infotext.js";

const MAX_TEXT = 1 << 20; // bytes of one text, unpacked
const EXIF_DESCRIPTION = 0x010e;
const EXIF_IFD = 0x8769;
const EXIF_COMMENT = 0x9286;

// Returns the parameters of a request, or null where the file has none.
export async function parametersOf(file) {
  const texts = await textsOf(new DataView(await file.arrayBuffer()));
  const own = parse(texts.darkroom);
  if (typeof own?.parameters === "object") return { ...own.parameters, seed: own.seed ?? own.parameters.seed, num_images: 1 };
  return texts.parameters ? readInfotext(texts.parameters) : null;
}

function parse(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

async function textsOf(view) {
  try {
    if (text(view, 1, 3) === "PNG") return await pngTexts(view);
    if (view.getUint16(0) === 0xffd8) return exifTexts(jpegExif(view));
    if (text(view, 8, 4) === "WEBP") return exifTexts(webpExif(view));
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error; // it is cut off, or damaged
  }
  return {};
}

function text(view, start, length, encoding = "latin1") {
  return new TextDecoder(encoding).decode(new Uint8Array(view.buffer, view.byteOffset + start, length));
}

async function pngTexts(view) {
  const found = {};
  for (let at = 8; at + 8 <= view.byteLength; at += 12 + view.getUint32(at)) {
    const length = view.getUint32(at);
    const kind = text(view, at + 4, 4);
    if (!["tEXt", "zTXt", "iTXt"].includes(kind)) continue;
    const data = new Uint8Array(view.buffer, at + 8, length);
    const end = data.indexOf(0);
    const name = new TextDecoder("latin1").decode(data.subarray(0, end));
    found[name] ??= await pngText(kind, data.subarray(end + 1));
  }
  return found;
}

async function pngText(kind, data) {
  if (kind === "tEXt") return new TextDecoder("latin1").decode(data);
  if (kind === "zTXt") return new TextDecoder("latin1").decode(await inflate(data.subarray(1)));
  const language = data.indexOf(0, 2);
  const start = data.indexOf(0, language + 1) + 1;
  const body = data.subarray(start);
  return new TextDecoder().decode(data[0] ? await inflate(body) : body);
}

// Unpacks up to MAX_TEXT bytes: a small chunk may unpack to gigabytes.
async function inflate(data) {
  const reader = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > MAX_TEXT) throw new RangeError("the text is too long");
    parts.push(part.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function jpegExif(view) {
  for (let at = 2; at + 4 <= view.byteLength && view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
    if (view.getUint8(at + 1) === 0xe1 && text(view, at + 4, 4) === "Exif") return slice(view, at + 10);
  }
  return null;
}

function webpExif(view) {
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const length = view.getUint32(at + 4, true);
    if (text(view, at, 4) === "EXIF") return slice(view, at + 8 + (text(view, at + 8, 4) === "Exif" ? 6 : 0));
    at += 8 + length + (length % 2);
  }
  return null;
}

function slice(view, start) {
  return new DataView(view.buffer, view.byteOffset + start);
}

function exifTexts(view) {
  if (view === null) return {};
  const little = view.getUint16(0) === 0x4949;
  const first = directory(view, view.getUint32(4, little), little);
  const inner = first[EXIF_IFD] ? directory(view, view.getUint32(first[EXIF_IFD].field, little), little) : {};
  return { darkroom: described(view, first[EXIF_DESCRIPTION]), parameters: commented(view, inner[EXIF_COMMENT]) };
}

// Tag -> where its bytes are: { field, start, count }.
function directory(view, at, little) {
  const found = {};
  for (let entry = 0; entry < view.getUint16(at, little); entry++) {
    const field = at + 2 + 12 * entry + 8;
    const count = view.getUint32(field - 4, little);
    found[view.getUint16(field - 8, little)] = { field, count, start: count > 4 ? view.getUint32(field, little) : field };
  }
  return found;
}

function described(view, place) {
  return place && text(view, place.start, place.count, "utf-8").replace(/\0+$/, "");
}

// A comment begins with eight bytes that name its encoding; the web UI's is UNICODE, in UTF-16 with high bytes first.
function commented(view, place) {
  if (!place || text(view, place.start, 7) !== "UNICODE") return undefined;
  return text(view, place.start + 8, place.count - 8, "utf-16be");
}
