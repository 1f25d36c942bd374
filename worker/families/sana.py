"""Sana: a transformer with linear attention on the latents of a VAE of stride 32; Gemma 2 reads the prompt.

Arguments are those of diffusers' `SanaPipeline` and `SanaControlNetPipeline` (`diffusers.pipelines.sana`). The
pipelines put an instruction before a prompt, and none before a negative one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding

#: Cleaning depends on which packages are installed.
_AS_IT_IS = {"clean_caption": False}


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Sana pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "negative_prompt": None,  # its default, an empty one, contradicts the embeddings
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        # It would generate at another size than asked for, and scale the result.
        "use_resolution_binning": False,
        **_AS_IT_IS,
        **(_control(inputs) if job.mode is Mode.CONTROLNET else {}),
    }


def _control(inputs: GenerationInputs) -> dict[str, Any]:
    scale = inputs.job.controls[0].conditioning_scale
    return {"control_image": inputs.controls[0], "controlnet_conditioning_scale": scale}


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    del config
    return None if inputs.guidance_scale <= 1 else inputs.negative_prompt


def _encode(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """With the instruction that the pipeline's call has by default, and `encode_prompt` has not."""
    instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    read = pipeline.encode_prompt(**given, complex_human_instruction=instruction)
    return cast("Sequence[Any]", read)


def _encode_negative(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """As `encode_prompt` does it, which would encode a prompt as well."""
    read = pipeline._get_gemma_prompt_embeds(
        prompt=given["prompt"],
        device=given["device"],
        dtype=pipeline.text_encoder.dtype,
        max_sequence_length=given["max_sequence_length"],
        **_AS_IT_IS,
    )
    return cast("Sequence[Any]", read)


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels),
        "patch_size of the transformer": (transformer.patch_size, 1),
        "guidance_embeds of the transformer": (bool(transformer.guidance_embeds), False),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.hidden_size
        pairs["caption_channels of the transformer"] = (transformer.caption_channels, width)
    return first_difference(pairs)


FAMILY = DiffusersFamily(
    id="sana",
    pipelines={Mode.TXT2IMG: "SanaPipeline", Mode.CONTROLNET: "SanaControlNetPipeline"},
    controlnet="SanaControlNetModel",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="SanaTransformer2DModel",
    repeated_blocks=("SanaTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=_negative_prompt,
        results={"prompt_embeds": 0, "prompt_attention_mask": 1},
        constants={"do_classifier_free_guidance": False, **_AS_IT_IS},
        encode_prompt=_encode,
        encode_negative=_encode_negative,
    ),
    arguments=arguments,
    misfit=_misfit,
)
