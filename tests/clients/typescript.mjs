// Runs the TypeScript client against the Darkroom at DARKROOM_SERVER. Argument: an image.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import fs from "node:fs";
import { Darkroom, DarkroomError, verifyWebhook } from "darkroom-client";

const server = process.env.DARKROOM_SERVER;
const client = new Darkroom(server);
const request = { task: "txt2img", prompt: "a red circle on a blue background", seed: 7, num_inference_steps: 3 };
const long = { ...request, num_inference_steps: 100, width: 256, height: 256 };

/** A `fetch` that counts calls by path, and lets a function change the answer to some. */
function watched(change) {
  const calls = [];
  const call = async (url, init) => {
    const path = new URL(url).pathname.replace(/[0-9a-f]{32}/, "ID");
    calls.push({ path, headers: new Headers(init.headers) });
    return change(path, calls.filter((seen) => seen.path === path).length, () => fetch(url, init));
  };
  return { calls, client: new Darkroom(server, { fetch: call, key: "KEY" }) };
}

async function waits() {
  const results = [];
  for (const wait of ["poll", "stream", "wait"]) {
    const kinds = [];
    results.push(await client.run({ ...request, num_images: 2 }, { wait, onEvent: (event) => kinds.push(event.kind) }));
    assert.equal(kinds.at(-1), "completed");
  }
  for (const { job, images } of results) {
    assert.deepEqual(job.images.map((image) => image.seed), [7, 8]);
    assert.deepEqual(images, results[0].images);
    assert.equal(Buffer.from(images[1].subarray(1, 4)).toString(), "PNG");
  }
}

async function resumes() {
  const cut = new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk);
      controller.error(new Error("the connection broke"));
    },
  });
  const { calls, client } = watched(async (path, count, answer) => {
    const response = await answer();
    if (!path.endsWith("/events") || count > 1) return response;
    return new Response(response.body.pipeThrough(cut), response);
  });
  const ids = [];
  const { images } = await client.run(request, { wait: "stream", onEvent: (event) => ids.push(event.id) });
  assert.equal(images.length, 1);
  assert.deepEqual(ids, [...new Set(ids)]);
  const resumed = calls.filter((call) => call.path.endsWith("/events")).map((call) => call.headers.get("last-event-id"));
  assert.equal(resumed[0], null);
  assert.ok(resumed.length >= 2 && (resumed[1] === null || ids.includes(resumed[1])), String(resumed));
  const links = calls.filter((call) => call.path.includes("/images/"));
  assert.deepEqual(links.map((call) => call.headers.get("authorization")), [null]);
}

async function polls() {
  const { client } = watched((path, _, answer) =>
    path.endsWith("/events") ? new Response("no streams here", { status: 403 }) : answer(),
  );
  assert.equal((await client.run(request, { wait: "stream" })).images.length, 1);
}

async function retries() {
  const { calls, client } = watched((path, count, answer) => {
    if (path !== "/v1/jobs" || count > 2) return answer();
    if (count === 2) throw new TypeError("the network is away");
    return Response.json({ code: "queue_full" }, { status: 429, headers: { "retry-after": "0" } });
  });
  assert.equal((await client.run(request)).images.length, 1);
  const keys = calls.filter((call) => call.path === "/v1/jobs").map((call) => call.headers.get("idempotency-key"));
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
}

async function cancels() {
  for (const wait of ["poll", "stream"]) {
    const controller = new AbortController();
    const run = client.run(long, { wait, signal: controller.signal, onEvent: () => controller.abort(new Error("enough")) });
    await assert.rejects(run, /enough/);
    await assert.rejects(
      client.run(long, {
        wait,
        onEvent() {
          throw new Error("mine");
        },
      }),
      /mine/,
    );
  }
  const { data } = await client.call("GET", "/v1/jobs?limit=4");
  for (const { id } of data) {
    let job = await client.job(id);
    while (!["completed", "failed", "cancelled"].includes(job.status)) job = await client.job(id);
    assert.equal(job.status, "cancelled");
  }
}

async function uploads() {
  const image = await client.upload(new Uint8Array(fs.readFileSync(process.argv[2])));
  const { job } = await client.run({ ...request, task: "img2img", image, strength: 0.9 }, { wait: "wait" });
  assert.equal(job.task, "img2img");
}

async function fails() {
  const error = await client.run({ ...request, width: 68 }).catch((reason) => reason);
  assert.ok(error instanceof DarkroomError);
  assert.deepEqual([error.code, error.status, error.title], ["invalid_request", 422, "Invalid request"]);
  assert.match(error.errorsByField.width[0], /multiple of 8/);
  const late = await client.run({ ...long, deadline_seconds: 1 }).catch((reason) => reason);
  assert.deepEqual([late.code, late.job.status], ["deadline_exceeded", "failed"]);
  const away = await new Darkroom("http://127.0.0.1:1", { retries: 0 }).job("a").catch((reason) => reason);
  assert.equal(away.code, "no_answer");
  const { client: proxied } = watched(() => new Response("<html>", { status: 404, statusText: "Not Found" }));
  assert.equal((await proxied.job("a").catch((reason) => reason)).code, "http_404");
}

async function verifies() {
  const key = Buffer.from("a secret of twenty-four bytes");
  const body = JSON.stringify({ id: "a", prompt: "ü" });
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signature = createHmac("sha256", key).update(`m.${timestamp}.${body}`).digest("base64");
  const headers = { "webhook-id": "m", "webhook-timestamp": timestamp, "webhook-signature": `v1,AAAA v1,${signature}` };
  const secret = `whsec_${key.toString("base64")}`;
  assert.equal((await verifyWebhook(body, headers, secret)).id, "a");
  for (const wrong of [{ "webhook-id": "n" }, { "webhook-timestamp": "1" }, { "webhook-signature": "v1,!" }]) {
    await assert.rejects(verifyWebhook(body, { ...headers, ...wrong }, secret), { code: "bad_signature" });
  }
}

for (const check of [waits, resumes, polls, retries, cancels, uploads, fails, verifies]) {
  await check();
  console.log(`${check.name}: ok`);
}
