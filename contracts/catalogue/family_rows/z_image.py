"""Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CONTROLS, HIRES, IMAGE, MASK, SEQUENCE_TEXT

#: Z-Image and Z-Image-Turbo. Its guidance scale is 1 less than elsewhere: 0 guides nothing.
FAMILY = Family(
    id="z-image",
    kind="flow",
    starts_from_latents=False,
    pipeline="ZImagePipeline",
    controlnet="ZImageControlNetModel",
    modes={
        Mode.TXT2IMG: SEQUENCE_TEXT | HIRES,
        Mode.IMG2IMG: SEQUENCE_TEXT | IMAGE,
        Mode.INPAINT: SEQUENCE_TEXT | MASK,
        Mode.CONTROLNET: SEQUENCE_TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: SEQUENCE_TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 4.0,
        "max_sequence_length": 512, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    guidance_off=0.0,
    # Turbo is published with this shift, the model that it was distilled from with 6.
    few_steps=({"shift": 3.0}, {"num_inference_steps": 8, "guidance_scale": 0.0}),
    denoiser_layers=r"layers_\d+_|(noise|context)_refiner_|all_(x_embedder|final_layer)|(cap|t)_embedder",
    lora_text_encoders=frozenset(),
    max_sequence_length=512,
    max_controls=1,
    controls_encoded_once=frozenset({Mode.CONTROLNET, Mode.CONTROLNET_INPAINT}),
    control_ranges=False,
    single_file=False,
    gguf=True,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=3),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
