// Reads the Content Credentials of files with npm's c2pa package; writes what it finds of each as a line of JSON.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import initialise, { WasmReader } from "@contentauth/c2pa-wasm";

const wasm = createRequire(import.meta.url).resolve("@contentauth/c2pa-wasm/c2pa.wasm");
await initialise({ module_or_path: await readFile(wasm) });

const [root, ...files] = process.argv.slice(2);
const settings = JSON.stringify({
  trust: { trust_anchors: await readFile(root, "utf-8") },
  verify: { verify_trust: true, ocsp_fetch: false, remote_manifest_fetch: false },
});
for (const file of files) {
  const kind = { png: "image/png", jpeg: "image/jpeg", webp: "image/webp" }[file.split(".").pop()];
  const reader = await WasmReader.fromBytes(kind, await readFile(file), settings);
  const report = JSON.parse(reader.json());
  const manifest = report.manifests[report.active_manifest];
  const assertion = (label) => manifest.assertions.find((one) => one.label.startsWith(label))?.data;
  const action = assertion("c2pa.actions").actions.at(-1);
  console.log(
    JSON.stringify({
      state: report.validation_state,
      action: action.action,
      source: action.digitalSourceType,
      seed: assertion("org.darkroom.receipt").seed,
      ingredients: manifest.ingredients?.length ?? 0,
      codes: (report.validation_status ?? []).map((status) => status.code),
    }),
  );
}
