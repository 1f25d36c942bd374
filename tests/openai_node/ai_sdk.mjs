// Runs Vercel's unmodified AI SDK (`ai`, `@ai-sdk/openai`) against the Darkroom at OPENAI_BASE_URL. Arguments: image, mask.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateImage } from "ai";

const [imagePath, maskPath] = process.argv.slice(2);
const model = createOpenAI({ apiKey: "none" }).image("shapes-sdxl");
const prompt = "a red circle on a blue background";

function sizeOf({ uint8Array, mediaType }) {
  assert.equal(mediaType, "image/png");
  const bytes = Buffer.from(uint8Array);
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
}

async function generates() {
  const openai = { quality: "low", background: "opaque", moderation: "low", outputFormat: "png", user: "u-1" };
  const { images, warnings, usage } = await generateImage({
    model, prompt, n: 2, size: "64x96", providerOptions: { openai },
  });
  assert.deepEqual(images.map(sizeOf), [[64, 96], [64, 96]]);
  assert.deepEqual(warnings, []);
  assert.equal(usage.totalTokens, undefined);
}

async function edits() {
  const images = [fs.readFileSync(imagePath)];
  const openai = { inputFidelity: "low", quality: "low" };
  const edited = await generateImage({
    model, prompt: { text: prompt, images, mask: fs.readFileSync(maskPath) }, providerOptions: { openai },
  });
  assert.deepEqual(sizeOf(edited.image), [64, 64]);
  assert.deepEqual(sizeOf((await generateImage({ model, prompt: { text: prompt, images } })).image), [64, 64]);
}

async function refuses() {
  for (const [openai, field] of [
    [{ style: "vivid" }, "style"], [{ background: "transparent" }, "background"], [{ frameCount: 2 }, "frame_count"],
  ]) {
    const failure = await generateImage({ model, prompt, maxRetries: 0, providerOptions: { openai } }).catch((error) => error);
    assert.ok(failure instanceof APICallError, String(failure));
    assert.deepEqual([failure.statusCode, failure.data.error.param, failure.isRetryable], [422, field, false]);
  }
}

for (const check of [generates, edits, refuses]) {
  await check();
  console.log(`${check.name}: ok`);
}
