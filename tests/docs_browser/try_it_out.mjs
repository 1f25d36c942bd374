// Opens /docs in Chromium and sends the default example of every route with "Try it out".
// Arguments: address of /docs, path of Chromium, an image, a LoRA. Prints one line of JSON a call, and one of what was loaded.

import { chromium } from "playwright-core";

const [page_url, executablePath, image, lora] = process.argv.slice(2);
const base = new URL(".", page_url).href;
const offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const browser = await chromium.launch({ executablePath, args: [offline, ...quiet, "--disable-component-update", "--disable-sync"] });
const page = await browser.newPage();
const loaded = new Set();
const complaints = [];
page.on("request", (request) => {
  const { protocol, host } = new URL(request.url());
  if (protocol !== "blob:" && protocol !== "data:") loaded.add(host);
});
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));

await page.goto(page_url);
await page.waitForSelector(".opblock");
const document_ = await (await page.request.get(new URL("openapi.json", base).href)).json();

async function makeJob(fields, wait) {
  const answer = await page.request.post(new URL("v1/txt2img", base).href, {
    data: { prompt: "a red circle on a blue background", ...fields },
    headers: wait ? { prefer: "wait" } : {},
  });
  return (await answer.json()).id;
}

// What a person would fill in: parameters of a path have no example that could be right.
async function valueOf(name, operationId) {
  if (name === "n") return "0";
  if (operationId === "getModel") return "shapes-sdxl";
  if (operationId === "deleteLora") return lora_id;
  if (operationId === "cancelJob") return makeJob({ num_inference_steps: 200, num_images: 8 }, false);
  return makeJob({ num_inference_steps: 2 }, true);
}

let lora_id = null;
async function tryOut(operation, tag, mediaType) {
  const block = page.locator(`#operations-${tag}-${operation.operationId}`);
  await block.locator(".opblock-summary-control").click();
  await block.getByRole("button", { name: "Try it out" }).click();
  for (const parameter of operation.parameters ?? []) {
    if (parameter.in !== "path") continue;
    const value = await valueOf(parameter.name, operation.operationId);
    await block.locator(`tr[data-param-name="${parameter.name}"] input`).fill(value);
  }
  if (mediaType) {
    const choice = block.locator(".opblock-section-request-body select.content-type");
    if (await choice.count()) await choice.selectOption(mediaType);
    const files = block.locator(".opblock-section-request-body input[type=file]");
    // The first file is the required one.
    if (await files.count()) await files.first().setInputFiles(operation.operationId === "createLora" ? lora : image);
  }
  await block.locator(".btn.execute").click();
  await block.locator(".live-responses-table .response-col_status").first().waitFor({ timeout: 120_000 });
  const status = await block.locator(".live-responses-table .response .response-col_status").first().innerText();
  const body = await block.locator(".live-responses-table .response .response-col_description").first().innerText();
  if (operation.operationId === "createLora") lora_id = /"id": "([^"]+)"/.exec(body)?.[1] ?? lora_id;
  console.log(JSON.stringify({ operation: operation.operationId, mediaType, status: parseInt(status), body: body.slice(0, 600) }));
  await block.locator(".btn-clear").click();
  await block.locator(".try-out__btn.cancel").click();
  await block.locator(".opblock-summary-control").click();
}

const last = ["deleteLora"];
const operations = Object.values(document_.paths).flatMap((methods) => Object.values(methods));
operations.sort((one, other) => last.includes(one.operationId) - last.includes(other.operationId));
for (const operation of operations) {
  for (const mediaType of Object.keys(operation.requestBody?.content ?? { "": null })) {
    if (mediaType.startsWith("image/") && mediaType !== "image/png") continue; // the image is one
    await tryOut(operation, operation.tags[0], mediaType);
  }
}
if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: false });
await browser.close();
console.log(JSON.stringify({ hosts: [...loaded], complaints }));
