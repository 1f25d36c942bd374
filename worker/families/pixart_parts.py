"""What PixArt-Σ and PixArt-α share: all but what the transformer is told beside the prompt. Not a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding, negative_if_guided

#: Side of the latents, in positions, by which diffusers knows a transformer that is told size and aspect.
CONDITIONED_SIDE = 128
#: Cleaning depends on which packages are installed.
_AS_IT_IS = {"clean_caption": False}


def pixart_family(
    id: str, pipeline: str, misfit: Callable[[Mapping[str, Any]], str | None], **more: Any
) -> DiffusersFamily:
    """Return a family of PixArt's architecture; `more` are further fields of it."""
    return DiffusersFamily(
        id=id,
        pipelines={Mode.TXT2IMG: pipeline},
        controlnet="",
        multi_controlnet="",
        denoiser="transformer",
        denoiser_class="PixArtTransformer2DModel",
        repeated_blocks=("BasicTransformerBlock",),
        t5="text_encoder",
        encoding=PromptEncoding(
            prompt_fields=("prompt",),
            option_fields=("max_sequence_length",),
            negative_option_fields=("max_sequence_length",),
            negative_prompt=negative_if_guided,
            results={"prompt_embeds": 0, "prompt_attention_mask": 1},
            constants={"do_classifier_free_guidance": False, **_AS_IT_IS},
            read_t5=_read_t5,
        ),
        arguments=_arguments,
        misfit=misfit,
        **more,
    )


def _arguments(inputs: GenerationInputs) -> dict[str, Any]:
    return {
        **inputs.size,
        "negative_prompt": None,  # its default, an empty one, contradicts the embeddings
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": inputs.job.max_sequence_length,
        # It would generate at another size than asked for, and scale the result.
        "use_resolution_binning": False,
        **_AS_IT_IS,
    }


def _read_t5(pipeline: Any, text: str, max_length: int, device: Any) -> None:
    pipeline.encode_prompt(
        [text], do_classifier_free_guidance=False, device=device, max_sequence_length=max_length, **_AS_IT_IS
    )


def pixart_misfit(components: Mapping[str, Any], *, is_conditioned: bool) -> str | None:
    """Return why a checkpoint's components do not fit together; None: they do.

    Args:
        is_conditioned: whether the pipeline tells the transformer the size and aspect of the image.
    """
    transformer, vae = components["transformer"].config, components["vae"].config
    # The transformer's own default: those for 1024 pixels have the conditions.
    own = transformer.use_additional_conditions
    has_conditions = transformer.sample_size == CONDITIONED_SIDE if own is None else own
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels),
        "use_additional_conditions of the transformer": (has_conditions, is_conditioned),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.d_model
        pairs["caption_channels of the transformer"] = (transformer.caption_channels, width)
    return first_difference(pairs)
