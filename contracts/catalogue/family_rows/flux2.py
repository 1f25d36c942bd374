"""FLUX.2: dev, whose guidance is an input, and klein, guided by second passes."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import MASK, REFERENCES, SEQUENCE_TEXT
from contracts.catalogue.references import References

_LENGTH = frozenset({"max_sequence_length"})
#: The pipelines scale references beyond it, and refuse narrower ones.
_REFERENCE_PIXELS, _REFERENCE_ASPECT = 1024 * 1024, 8

FAMILY = Family(
    id="flux2",
    kind="flow",
    pipeline="Flux2Pipeline",
    controlnet="",
    modes={Mode.TXT2IMG: _LENGTH, Mode.EDIT: _LENGTH | REFERENCES},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 4.0,
        "max_sequence_length": 512, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    negative_needs_true_cfg=True,
    denoiser_layers=(
        r"(single_)?transformer_blocks_|(double|single)_blocks_|(double|single)_stream_modulation|"
        r"(x|context)_embedder|time_guidance_embed|norm_out|proj_out"
    ),
    lora_text_encoders=frozenset(),
    max_sequence_length=512,
    single_file=False,
    gguf=True,
    # The system's message of the template, and its markers.
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=40),),
    long_prompts=("truncate", "refuse"),
    references=References(
        max_count=10,
        meaning="The images that `prompt` changes or takes something from, in its words.",
        max_pixels=_REFERENCE_PIXELS,
        max_aspect=_REFERENCE_ASPECT,
    ),
    reserved_words=("[IMG]",),
)  # fmt: skip

#: FLUX.2 klein: Qwen3 reads the prompt. Distilled or not, as its `model_index.json` says.
_FLUX2_KLEIN = replace(
    FAMILY,
    id="flux2-klein",
    pipeline="Flux2KleinPipeline",
    modes={
        Mode.TXT2IMG: SEQUENCE_TEXT,
        # The image itself is a reference.
        Mode.INPAINT: SEQUENCE_TEXT | MASK,
        Mode.EDIT: SEQUENCE_TEXT | REFERENCES,
        Mode.EDIT_INPAINT: SEQUENCE_TEXT | REFERENCES | MASK,
    },
    negative_needs_true_cfg=False,
    guides_in_turn=True,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=3),),
    references=References(
        max_count=4,
        meaning="The images that `prompt` changes or takes something from, in its words; one with `mask_image`.",
        max_pixels=_REFERENCE_PIXELS,
        max_aspect=_REFERENCE_ASPECT,
        max_with_mask=1,
        beside_image=True,
    ),
    reads_image_as_reference=True,
    reserved_words=(),
)
FAMILY = replace(
    FAMILY,
    other_checkpoints=MappingProxyType(
        {"Flux2KleinPipeline": _FLUX2_KLEIN, "Flux2KleinInpaintPipeline": _FLUX2_KLEIN}
    ),
)
