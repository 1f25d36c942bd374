"""Suggestions for unknown fields of a request: the field that was probably meant. Changes and accepts nothing.

Knows the names that clients of other image services use for our fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import BaseModel

from app.parsing.json_bodies import UNKNOWN_FIELD
from app.parsing.schemas import allowed_at
from contracts.requests.schema import REQUESTS

#: Longer names are not compared with ours: they are no misspellings, and comparing takes time.
_LONGEST_NAME = 40
#: How alike two names must be, from 0 to 1, for one to be taken as a misspelling of the other.
_SIMILARITY = 0.8
#: Of misspelt names of other services: beginning that must be right, and the shortest that is compared.
_RIGHT_LETTERS, _SHORTEST_WORD = 2, 4

#: Our fields, and what others call them: AUTOMATIC1111, ComfyUI, OpenAI, Replicate, fal, Stability, InvokeAI,
#: diffusers. Compared without case and punctuation. A name may stand for several of ours, or for one of them in
#: each place.
_FOREIGN_NAMES: dict[str, str] = {
    "prompt": "text text_prompt text_prompts inputs input caption description positive positive_prompt",
    "negative_prompt": "negative negative_prompts negative_text uc uncond",
    "model": "model_id model_name checkpoint ckpt ckpt_name sd_model_checkpoint engine engine_id base_model",
    "width": "size image_size resolution aspect_ratio dimensions w",
    "height": "size image_size resolution aspect_ratio dimensions h",
    "num_images": "n n_iter batch_size batch_count num_outputs num_images_per_prompt number_of_images image_count "
    "samples num_samples n_samples count images_per_prompt",
    "num_inference_steps": "steps num_steps step_count sampling_steps inference_steps sample_steps ddim_steps "
    "denoising_steps",
    "guidance_scale": "cfg_scale cfg cfg_guidance_scale prompt_guidance classifier_free_guidance scale",
    "true_cfg_scale": "true_cfg cfg_scale_true",
    "guidance_rescale": "cfg_rescale cfg_rescale_multiplier",
    "guidance": "guider guidance_kind guidance_type",
    "clip_skip": "clip_stop_at_last_layers clip_layers",
    "dynamic_thresholding": "thresholding dynamic_thresholding_ratio sample_max_value dynthres",
    "seed": "random_seed noise_seed manual_seed seeds",
    "scheduler": "sampler sampler_name sampler_index sampling_method sampler_type scheduler_name",
    "loras": "lora lora_weights lora_url lora_path adapters extra_lora lora_models",
    "ip_adapters": "ip_adapter ipadapter ip_adapter_image ip_adapter_images image_prompt image_prompts",
    "refiner": "refiner_checkpoint refiner_model refiner_name sd_refiner refine refiner_steps",
    "switch_at": "refiner_switch_at refiner_start refiner_switch high_noise_frac denoising_end denoising_start",
    "cascade": "super_resolution stage_2 stage_ii second_stage upscale_model",
    "hires": "enable_hr hires_fix hr hires_scale hr_scale highres_fix upscale",
    "textual_inversions": "textual_inversion embeddings embedding inversions ti",
    "image": "init_image init_images images image_url image_urls input_image image_base64 image_b64 source_image "
    "start_image reference_image control_image",
    "references": "reference reference_image reference_images ref_image ref_images image_references input_image "
    "input_images images image_urls image_input",
    "strength": "denoising_strength denoise denoise_strength prompt_strength image_to_image_strength",
    "mask_image": "mask mask_url mask_image_url masks mask_b64 inpaint_mask",
    "mask_blur": "mask_feather mask_blur_x mask_blur_y blur_factor",
    "padding_mask_crop": "inpaint_full_res_padding only_masked_padding inpaint_full_res",
    "controls": "controlnet controlnets controlnet_units control_units alwayson_scripts control_image "
    "controlnet_conditioning_scale",
    "output_format": "format image_format file_format response_mime_type",
    "output_quality": "quality jpeg_quality image_quality output_compression compression",
    "response_format": "response_type return_type return_format",
    "deadline_seconds": "timeout timeout_seconds ttl deadline",
    "webhook": "webhook_url callback callback_url webhook_events_filter",
    "metadata": "user tags labels safety_identifier",
    "previews": "partial_images preview num_previews",
    # in an entry of `loras` or `controls`
    "name": "id lora lora_name model path model_name",
    "scale": "weight strength multiplier lora_scale lora_strength strength_model",
    "controlnet": "id name model model_name controlnet_name",
    "conditioning_scale": "weight strength scale control_weight controlnet_conditioning_scale control_strength",
    "preprocess": "module preprocessor processor annotator",
    "preprocess_options": "preprocessor_options preprocessor_params processor_params preprocess_params",
    "guidance_start": "start control_guidance_start starting_control_step start_percent begin_step_percent",
    "guidance_end": "end control_guidance_end ending_control_step end_percent end_step_percent",
}


def _fold(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


_OURS_BY_FOREIGN: dict[str, list[str]] = {}
for _ours, _names in _FOREIGN_NAMES.items():
    for _name in _names.split():
        _OURS_BY_FOREIGN.setdefault(_fold(_name), []).append(_ours)


def word_unknown_field(kind: type[BaseModel], path: Sequence[str | int]) -> str:
    """The message about a field that this kind of request, or an entry of a list in it, does not have.

    Args:
        path: of the unknown field in the request.
    """
    known = allowed_at(kind, path)
    name, fields = str(path[-1]), known if isinstance(known, list) else []
    meant = _meanings(name, fields)
    if meant:
        return f"is not a field of this request; did you mean {' and '.join(meant)}?"
    if len(path) == 1 and kind in REQUESTS.values():
        meant = _meanings(name, [field for other in REQUESTS.values() for field in other.model_fields])[:1]
        routes = [f"/v1/{task}" for task, other in REQUESTS.items() if meant and meant[0] in other.model_fields]
        if routes:
            whose = f"{name} is a field" if name == meant[0] else f"did you mean {meant[0]}? It is a field"
            return f"is not a field of this request; {whose} of {', '.join(routes)}"
    return UNKNOWN_FIELD


def _meanings(name: str, known: Sequence[str]) -> list[str]:
    """Which of these fields an unknown name may stand for."""
    if len(name) > _LONGEST_NAME:
        return []
    folded = {_fold(field): field for field in known}
    if _fold(name) in folded:
        return [folded[_fold(name)]]
    foreign = [field for field in _OURS_BY_FOREIGN.get(_fold(name), ()) if field in known]
    if foreign:
        return foreign
    alike = difflib.get_close_matches(_fold(name), folded, 1, _SIMILARITY)
    if alike:
        return [folded[match] for match in alike]
    return _misspelt_foreign(_fold(name), known)


def _misspelt_foreign(folded: str, known: Sequence[str]) -> list[str]:
    """Which of these fields a misspelling of another service's name may stand for; its first letters are right."""
    begin = folded[:_RIGHT_LETTERS]
    names = [name for name in _OURS_BY_FOREIGN if name.startswith(begin)] if len(folded) >= _SHORTEST_WORD else []
    alike = difflib.get_close_matches(folded, names, 1, _SIMILARITY)
    return [field for field in _OURS_BY_FOREIGN[alike[0]] if field in known] if alike else []
