"""Qwen-Image, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import diffusers
import transformers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import CONTROL, CONTROL_CALL, IMAGE, MASK, SIZE, START, Case, means_only
from tests.support.untrained_llm import decoder_options, qwen_tokenizer
from tests.support.untrained_parts import WIDTH, seeded, stirred

_TRANSFORMER: dict[str, Any] = {
    "in_channels": 64, "out_channels": 16, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip


def qwen_vision_model(tokenizer: Any) -> Any:
    """Qwen2.5-VL with three layers, and two for images."""
    text = decoder_options(tokenizer) | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    text.pop("head_dim")
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1], "window_size": 112, "patch_size": 14,
    }  # fmt: skip
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start"}
    names["vision_end_token_id"] = "vision_end"
    ids = {option: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for option, token in names.items()}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return seeded(lambda: transformers.Qwen2_5_VLForConditionalGeneration(config))


def _templates(*pipelines: Any) -> list[str]:
    """The prompt templates in the constructors of these classes: their long texts."""
    constants = [text for pipeline in pipelines for text in pipeline.__init__.__code__.co_consts]
    return [text for text in constants if isinstance(text, str) and len(text) > 60]


def pipeline(read_by: Any = diffusers.QwenImagePipeline) -> Any:
    """Qwen-Image with two blocks, for the prompts of a pipeline; with transparency for that of layers."""
    is_layered = read_by is diffusers.QwenImageLayeredPipeline
    of_layers = {"use_additional_t_cond": True, "use_layer3d_rope": True} if is_layered else {}
    channels = {"input_channels": 4} if is_layered else {}
    tokenizer = qwen_tokenizer(*_templates(read_by))
    return diffusers.QwenImagePipeline(
        tokenizer=tokenizer, text_encoder=qwen_vision_model(tokenizer),
        vae=seeded(lambda: diffusers.AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1, **channels)),
        transformer=seeded(
            lambda: diffusers.QwenImageTransformer2DModel(num_layers=2, **_TRANSFORMER, **of_layers)
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
    )  # fmt: skip


def controlnet(transformer: Any, **options: Any) -> Any:
    """A ControlNet of one block; with `extra_condition_channels` 4 it reads a mask beside the image."""
    del transformer
    options = {**_TRANSFORMER, "num_layers": 1, **options}
    return stirred(seeded(lambda: diffusers.QwenImageControlNetModel(**options)))


def agree(pipeline: Any) -> None:
    """Have it draw nothing from the generator of the whole process for the latents of the control image."""
    if isinstance(pipeline, diffusers.QwenImageControlNetInpaintPipeline):
        pipeline.vae.encode = means_only(pipeline.vae.encode)


def _case(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"true_cfg_scale": 3.0, "max_sequence_length": 64, **fields.pop("both", {})}
    pipeline = f"QwenImage{name}Pipeline"
    return Case("qwen-image", mode, pipeline, {**SIZE, **call, **both}, {**fields, **both}, scheduler, 3)


CASES = [
    _case(Mode.TXT2IMG, "", "flow_euler"),
    _case(Mode.TXT2IMG, "", "flow_euler", both={"true_cfg_scale": 1.0, "negative_prompt": None}),
    _case(Mode.IMG2IMG, "Img2Img", "flow_euler", START, strength=0.8),
    _case(Mode.INPAINT, "Inpaint", "flow_euler", START | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _case(Mode.CONTROLNET, "ControlNet", "flow_euler", {"control_image": CONTROL, **CONTROL_CALL}),
    _case(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "flow_euler",
        {"control_image": IMAGE, "control_mask": MASK, **CONTROL_CALL}, mask_blur=0,
    ),
]  # fmt: skip
