"""DiT, whose models are prompted by a class."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode

#: DiT, trained on the classes of ImageNet. Its pipeline takes no size: a checkpoint makes images of one.
FAMILY = Family(
    id="dit",
    kind="diffusion",
    pipeline="DiTPipeline",
    controlnet="",
    modes={Mode.TXT2IMG: frozenset({"class_label"})},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 256, "height": 256, "num_inference_steps": 50, "guidance_scale": 4.0, "scheduler": "ddim",
    },
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    single_file=False,
    refuses=("prompt", "prompt_syntax", "long_prompt"),
    long_prompts=(),
    prompted_by_class=True,
    fixed_size=True,
    unit_noise=True,
)  # fmt: skip
