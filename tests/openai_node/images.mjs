// Runs the unmodified `openai` package from npm against the Darkroom at OPENAI_BASE_URL. Arguments: image, mask.

import assert from "node:assert/strict";
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const [imagePath, maskPath] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "none", maxRetries: 0 });
const prompt = "a red circle on a blue background";

function png(datum) {
  const bytes = Buffer.from(datum.b64_json, "base64");
  assert.equal(bytes.subarray(1, 4).toString(), "PNG");
  return { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20), bytes };
}

async function generates() {
  const answer = await client.images.generate({ prompt, n: 2, size: "64x96", seed: 7 });
  assert.equal(answer.data.length, 2);
  assert.equal(answer.size, "64x96");
  const again = await client.images.generate({ prompt, n: 1, size: "64x96", seed: 7 });
  assert.deepEqual([png(again.data[0]).width, png(again.data[0]).height], [64, 96]);
  const { data } = await client.images.generate({ prompt, response_format: "url", output_format: "webp" });
  const image = await fetch(data[0].url);
  assert.equal(image.headers.get("content-type"), "image/webp");
}

async function streams() {
  const seen = [];
  for await (const event of await client.images.generate({ prompt, stream: true, partial_images: 2, size: "64x64" })) {
    seen.push(event.type);
    assert.equal(png(event).width, 64);
  }
  const partial = "image_generation.partial_image";
  assert.deepEqual(seen, [partial, partial, "image_generation.completed"]);
}

async function edits() {
  const file = async (path) => toFile(fs.createReadStream(path), path, { type: "image/png" });
  const body = { prompt: "a red square on a blue background", strength: 0.9, seed: 1 };
  const masked = await client.images.edit({ image: await file(imagePath), mask: await file(maskPath), ...body });
  assert.equal(png(masked.data[0]).width, 64);
  const seen = [];
  const stream = await client.images.edit({ image: [await file(imagePath)], stream: true, partial_images: 1, ...body });
  for await (const event of stream) seen.push(event.type);
  assert.deepEqual(seen, ["image_edit.partial_image", "image_edit.completed"]);
  fs.writeFileSync("edited.png", png(masked.data[0]).bytes);
}

async function fails() {
  const failure = await client.images.generate({ prompt, size: "68x64" }).catch((error) => error);
  assert.ok(failure instanceof OpenAI.UnprocessableEntityError);
  assert.deepEqual([failure.param, failure.code, failure.type], ["size", "invalid_request", "invalid_request_error"]);
  assert.match(failure.message, /must be a multiple of 8, got 68/);
}

async function lists() {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("shapes-sdxl"));
  assert.equal((await client.models.retrieve("shapes-flux")).id, "shapes-flux");
}

async function runsBatches() {
  const body = (size) => ({ prompt, size, response_format: "url" });
  const lines = ["64x64", "68x64"].map((size) => JSON.stringify(
    { custom_id: size, method: "POST", url: "/v1/images/generations", body: body(size) },
  ));
  const file = await client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "r.jsonl"), purpose: "batch" });
  let batch = await client.batches.create(
    { input_file_id: file.id, endpoint: "/v1/images/generations", completion_window: "24h" },
  );
  while (batch.status !== "completed") {
    assert.ok(["validating", "in_progress", "finalizing"].includes(batch.status), batch.status);
    await new Promise((resolve) => setTimeout(resolve, 200));
    batch = await client.batches.retrieve(batch.id);
  }
  assert.deepEqual(batch.request_counts, { total: 2, completed: 1, failed: 1 });
  const result = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
  assert.deepEqual([result.custom_id, result.response.status_code], ["64x64", 200]);
  const failure = JSON.parse(await (await client.files.content(batch.error_file_id)).text());
  assert.deepEqual([failure.custom_id, failure.response.body.error.param], ["68x64", "size"]);
  const ids = [];
  for await (const { id } of client.batches.list()) ids.push(id);
  assert.deepEqual(ids, [batch.id]);
}

for (const check of [generates, streams, edits, fails, lists, runsBatches]) {
  await check();
  console.log(`${check.name}: ok`);
}
