// Reads the text of parameters that AUTOMATIC1111's web UI, and Darkroom, write into images. Knows no files.

const NUMBERS = {
  Steps: "num_inference_steps",
  "CFG scale": "guidance_scale",
  Seed: "seed",
  "Denoising strength": "strength",
  "Mask blur": "mask_blur",
  "Clip skip": "clip_skip",
  "True cfg scale": "true_cfg_scale",
  "Guidance rescale": "guidance_rescale",
  "Max sequence length": "max_sequence_length",
};
const TEXTS = { Sampler: "scheduler", Model: "model", "Prompt 2": "prompt_2", "Prompt 3": "prompt_3" };

// The parameters of a request; what it has no field for is left out.
export function readInfotext(text) {
  const lines = text.trim().split("\n");
  const isLast = /^Steps: \d/.test(lines.at(-1));
  const pairs = isLast ? readPairs(lines.pop()) : {};
  const start = lines.findIndex((line) => line.startsWith("Negative prompt: "));
  const prompt = lines.slice(0, start < 0 ? undefined : start).join("\n");
  const found = { prompt, prompt_syntax: "a1111", task: "Denoising strength" in pairs ? "img2img" : "txt2img" };
  if (start >= 0) found.negative_prompt = lines.slice(start).join("\n").slice("Negative prompt: ".length);
  for (const [name, field] of Object.entries(NUMBERS)) if (name in pairs) found[field] = Number(pairs[name]);
  for (const [name, field] of Object.entries(TEXTS)) if (name in pairs) found[field] = pairs[name];
  if ("clip_skip" in found && --found.clip_skip === 0) delete found.clip_skip; // 1 is the last layer, as without it
  const size = /^(\d+)x(\d+)$/.exec(pairs.Size ?? "");
  return size ? { ...found, width: Number(size[1]), height: Number(size[2]) } : found;
}

// `Name: value, Name: "a value, in quotes"`.
function readPairs(line) {
  const found = {};
  for (const [, name, value] of line.matchAll(/([\w][\w ]*): ("(?:\\.|[^"\\])*"|[^,]*)(?:, |$)/g)) {
    found[name] = value.startsWith('"') ? unquote(value) : value;
  }
  return found;
}

function unquote(value) {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}
