// Where each field of a request is shown, and its label. A field that is not here is shown last, under its own name.

export const GROUPS = [
  {
    id: "subject",
    title: "",
    fields: {
      name: "Name",
      images: "Images",
      instance_prompt: "Prompt of all images",
      prompt: "Prompt",
      class_label: "Class",
      negative_prompt: "Negative prompt",
      image: "Image",
      mask_image: "Mask",
      control_image: "Control image",
      references: "References",
      controls: "Controls",
    },
  },
  {
    id: "image",
    title: "",
    fields: {
      width: "Width",
      height: "Height",
      num_images: "Images",
      layers: "Layers",
      seed: "Seed",
      strength: "Strength",
      num_inference_steps: "Steps",
      steps: "Steps",
      batch_size: "Batch",
      guidance_scale: "Guidance",
      scheduler: "Scheduler",
      speed: "Speed",
      sample_prompts: "Prompts of samples",
      snapshot_every_steps: "Snapshot every",
      checkpoint_every_steps: "Checkpoint every",
    },
  },
  {
    id: "learning",
    title: "How it learns",
    fields: {
      rank: "Rank",
      alpha: "Alpha",
      targets: "Layers",
      train_text_encoder: "Text encoders too",
      vectors: "Vectors",
      initial_text: "Initial text",
      learning_rate: "Learning rate",
      optimizer: "Optimizer",
      schedule: "Schedule",
      warmup_steps: "Warm-up steps",
      snr_gamma: "Min-SNR gamma",
      resolution: "Resolution",
    },
  },
  {
    id: "prior",
    title: "Prior preservation",
    fields: { class_prompt: "Class prompt", class_images: "Class images", prior_loss_weight: "Weight" },
  },
  { id: "adapters", title: "LoRAs", fields: { loras: "LoRAs" } },
  { id: "references", title: "Reference images", fields: { ip_adapters: "IP-Adapters" } },
  {
    id: "inputs",
    title: "Fit and mask",
    fields: { fit: "Fit", mask_blur: "Mask blur", padding_mask_crop: "Crop around the mask" },
  },
  {
    id: "prompts",
    title: "More of the prompt",
    fields: {
      prompt_2: "Second prompt",
      prompt_3: "Third prompt",
      prompt_syntax: "Syntax",
      textual_inversions: "Textual inversions",
      long_prompt: "Long prompts",
      max_sequence_length: "Tokens for T5",
      clip_skip: "CLIP skip",
    },
  },
  {
    id: "sampling",
    title: "Sampling",
    fields: {
      batchable: "Share calls",
      true_cfg_scale: "True CFG",
      guidance_rescale: "Guidance rescale",
      guidance: "Kind of guidance",
      dynamic_thresholding: "Dynamic thresholding",
      vae: "VAE",
      refiner: "Refiner",
      cascade: "Second model",
      hires: "Second pass",
      original_size: "Original size",
      crops_coords_top_left: "Crop corner",
      target_size: "Target size",
    },
  },
  {
    id: "output",
    title: "Output",
    fields: {
      output_format: "Format",
      output_quality: "Quality",
      previews: "Previews",
      keep_latents: "Keep latents",
      check_step: "Step to check",
      response_format: "Response",
    },
  },
  {
    id: "delivery",
    title: "Queue and delivery",
    fields: {
      priority: "Priority",
      deadline_seconds: "Deadline in seconds",
      cancel_on_disconnect: "Cancel on disconnect",
      webhook: "Webhook",
      metadata: "Metadata",
    },
  },
];

// Chosen above the form.
export const CHOSEN = new Set(["task", "model"]);

// Numbers that a slider stands beside.
export const SLIDERS = new Set([
  "strength",
  "num_inference_steps",
  "guidance_scale",
  "conditioning_scale",
  "guidance_start",
  "guidance_end",
  "scale",
  "switch_at",
]);

// Fields of entries.
const ENTRY_LABELS = {
  name: "Name",
  scale: "Weight",
  controlnet: "ControlNet",
  preprocess: "Preprocessor",
  preprocess_options: "Preprocessor's options",
  mode: "Kind of control",
  conditioning_scale: "Weight",
  guidance_start: "From",
  guidance_end: "To",
  kind: "Kind",
  layers: "Layers",
  start: "From",
  stop: "To",
  momentum: "Momentum",
  eta: "Share that saturates",
  norm_threshold: "Longest",
  zero_steps: "Steps at zero",
  noise_level: "Noise",
  ratio: "Share kept",
  max_value: "Largest value",
  switch_at: "Takes over at",
  upscaler: "Enlarged by",
  steps: "Steps",
  step: "Step",
  latents: "Kept latents",
  aesthetic_score: "Rating",
  negative_aesthetic_score: "Rating to avoid",
  caption: "Caption",
  conditioning_image: "Control image",
  url: "Address",
  events: "Events",
};

const LABELS = Object.assign({}, ENTRY_LABELS, ...GROUPS.map((group) => group.fields));

export function labelOf(name) {
  return LABELS[name] ?? (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");
}

// The groups that a request has fields in: [group, names].
export function grouped(names) {
  const known = new Set([...CHOSEN, ...GROUPS.flatMap((group) => Object.keys(group.fields))]);
  const rest = { id: "rest", title: "More", fields: Object.fromEntries(names.map((name) => [name, name])) };
  const inRest = (name) => !known.has(name);
  return [
    ...GROUPS.map((group) => [group, Object.keys(group.fields).filter((name) => names.includes(name))]),
    [rest, names.filter(inRest)],
  ].filter(([, found]) => found.length);
}
