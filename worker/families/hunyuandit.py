"""HunyuanDiT: a transformer that attends to the sequences of BERT and mT5, for English and Chinese prompts.

Arguments are those of diffusers' `HunyuanDiTPipeline` and `HunyuanDiTControlNetPipeline`
(`diffusers.pipelines.hunyuandit`, `.controlnet_hunyuandit`). Both encoders read the same prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.deterministic_vae import DeterministicVae
from worker.families.inputs import GenerationInputs, single_or_list
from worker.families.prompts import PromptEncoding, negative_if_guided

#: Arguments of `encode_prompt` for each encoder, as the pipelines' calls give them.
_BERT: Mapping[str, int] = {"text_encoder_index": 0, "max_sequence_length": 77}
_T5: Mapping[str, int] = {"text_encoder_index": 1, "max_sequence_length": 256}


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a HunyuanDiT pipeline."""
    job = inputs.job
    control: dict[str, Any] = {}
    if job.mode is Mode.CONTROLNET:
        scales = [one.conditioning_scale for one in job.controls]
        control["control_image"] = single_or_list(inputs.controls)
        control["controlnet_conditioning_scale"] = single_or_list(scales)
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "guidance_rescale": job.guidance_rescale or 0.0,
        # It would generate at another size than asked for.
        "use_resolution_binning": False,
        **control,
    }


def _encode(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """Return the results of both encoders: sequence, its negative, mask, its negative; then the same of T5."""
    return [*pipeline.encode_prompt(**given, **_BERT), *pipeline.encode_prompt(**given, **_T5)]


def _read_t5(pipeline: Any, text: str, max_length: int, device: Any) -> None:
    del max_length
    pipeline.encode_prompt([text], do_classifier_free_guidance=False, device=device, **_T5)


def _keep_residuals(pipeline: Any) -> None:
    """Give the transformer its own copy of the list of ControlNet residuals.

    diffusers' `HunyuanDiT2DModel` (0.42) pops them off the caller's list, so a call that ran out of memory could
    not be repeated.
    """

    def copy(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        del module
        added = kwargs.get("controlnet_block_samples")
        return args, kwargs if added is None else {**kwargs, "controlnet_block_samples": list(added)}

    pipeline.transformer.register_forward_pre_hook(copy, with_kwargs=True)


def _patch(pipeline: Any) -> None:
    if "controlnet" in pipeline.components:
        pipeline.vae = DeterministicVae(pipeline.vae)


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels),
        "text_len of the transformer": (transformer.text_len, _BERT["max_sequence_length"]),
        "text_len_t5 of the transformer": (transformer.text_len_t5, _T5["max_sequence_length"]),
    }
    bert, t5 = (components.get(name) for name in ("text_encoder", "text_encoder_2"))
    if bert is not None:
        width = transformer.cross_attention_dim
        pairs["cross_attention_dim of the transformer"] = (width, bert.config.hidden_size)
    if t5 is not None:
        width = transformer.cross_attention_dim_t5
        pairs["cross_attention_dim_t5 of the transformer"] = (width, t5.config.d_model)
    return first_difference(pairs)


FAMILY = DiffusersFamily(
    id="hunyuandit",
    pipelines={Mode.TXT2IMG: "HunyuanDiTPipeline", Mode.CONTROLNET: "HunyuanDiTControlNetPipeline"},
    controlnet="HunyuanDiT2DControlNetModel",
    multi_controlnet="HunyuanDiT2DMultiControlNetModel",
    denoiser="transformer",
    denoiser_class="HunyuanDiT2DModel",
    repeated_blocks=("HunyuanDiTBlock",),
    t5="text_encoder_2",
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=(),
        negative_option_fields=(),
        negative_prompt=negative_if_guided,
        results={
            "prompt_embeds": 0, "prompt_attention_mask": 2, "prompt_embeds_2": 4, "prompt_attention_mask_2": 6,
        },
        constants={"do_classifier_free_guidance": False},
        read_t5=_read_t5,
        encode_prompt=_encode,
    ),
    arguments=arguments,
    misfit=_misfit,
    patch=_patch,
    prepare=_keep_residuals,
)  # fmt: skip
