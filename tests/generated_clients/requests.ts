// Compiles against the types that openapi-typescript makes of the document; is never run.

import createClient from "openapi-fetch";
import type { components, operations, paths } from "./darkroom.js";

type Schemas = components["schemas"];
export type Created = operations["createTxt2img"]["responses"][202];

export const requests = {
  txt2img: { prompt: "a red circle", seed: 7 } satisfies Schemas["Txt2ImgRequest"],
  img2img: { prompt: "a red circle", image: "upload:1" } satisfies Schemas["Img2ImgRequest"],
  controlnet: { prompt: "a red circle", controls: [{ controlnet: "any" }] } satisfies Schemas["ControlNetRequest"],
  edit: { prompt: "a red circle", image: "upload:1" } satisfies Schemas["EditRequest"],
  lora: { name: "of a catalogue that has yet to be written" } satisfies Schemas["Lora"],
  explicit_null: { prompt: "a red circle", model: null, negative_prompt: null } satisfies Schemas["Txt2ImgRequest"],
};

// @ts-expect-error: a prompt is required
export const without_prompt: Schemas["Txt2ImgRequest"] = { seed: 7 };

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });

export async function use() {
  await client.GET("/v1/jobs", { params: { query: { status: "completed", limit: 5 } } });
  // @ts-expect-error: no job has this status
  await client.GET("/v1/jobs", { params: { query: { status: "done" } } });
  await client.POST("/v1/jobs/{id}/cancel", { params: { path: { id: "1" } } });
  const { data, error } = await client.POST("/v1/txt2img", { body: { prompt: "a red circle", seed: 7 } });
  if (!data) return error.code;
  const started: string | null = data.started_at;
  const seeds: (number | null)[] = data.receipt?.seeds ?? [];
  const url: string = data.images[0]!.url;
  // @ts-expect-error: left out unless the request asks for it
  const file: string = data.images[0]!.b64_json;
  return [started, seeds, url, file];
}
