"""Components on torch's meta device, from their configurations, and how a pipeline calls them.

A component class whose arguments do not have the usual names, or not the usual shapes, gets a row in `Inputs.of`.
Knows nothing of what is counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.modeling_utils import no_init_weights
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel

from contracts.memory.activation_tables import class_of, works_on_pixels
from contracts.memory.activations import WorkloadShape
from worker.families.z_image import complete_controlnet

#: Entries of a configuration file that say which class, or who wrote it.
_NOT_OPTIONS = {
    "_class_name", "_diffusers_version", "architectures", "model_type", "dtype", "transformers_version",
}  # fmt: skip
#: Language models whose heads no pipeline uses.
_HEADLESS = frozenset({"Mistral3ForConditionalGeneration"})
_CLIP_TOKENS = 77
#: Classes that are counted for one number of images: their steps depend on it, as they work on images one by one,
#: or, of Gemma 2 and ChatGLM, their attention makes a matrix of pairs of tokens for each.
ONE_BY_ONE = frozenset(
    {
        "ZImageTransformer2DModel",
        "ZImageControlNetModel",
        "Lumina2Transformer2DModel",
        "Gemma2Model",
        "ChatGLMModel",
    }
)
#: Entries of a denoiser's configuration that say how wide its prompts are, the more exact first.
_PROMPT_WIDTHS = ("joint_attention_dim", "caption_channels", "text_embed_dim", "cross_attention_dim")
#: Pixels of an image along each side for one position of the latents that a class works on: that of its VAE.
_STRIDES = {"AutoencoderDC": 32, "SanaTransformer2DModel": 32, "SanaControlNetModel": 32}
_USUAL_STRIDE = 8
#: Axes of positions where a configuration does not say them, as of FLUX.1.
_USUAL_AXES = 3
#: Of the published Z-Image: widths of its axes of positions, as shares of a head's, and of its prompts, as one of
#: its transformer's. The configurations of its ControlNets do not say them.
_Z_IMAGE_AXES, _Z_IMAGE_CAPTION = (1 / 4, 3 / 8, 3 / 8), 2 / 3


def build(config: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16) -> Any:
    """The component with this configuration, on the meta device."""
    options = {key: value for key, value in config.items() if key not in _NOT_OPTIONS}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), no_init_weights():  # drawing values that nobody sees takes a third of the time
            if "_class_name" in config:
                module = getattr(diffusers, config["_class_name"])(**options)
                if config["_class_name"] == "ZImageControlNetModel":
                    complete_controlnet(module, _z_image_of(options).to(dtype))
                return torch.nn.Module.to(module, dtype)  # buffers, too
            if class_of(config) == "ChatGLMModel":
                return ChatGLMModel(ChatGLMConfig(**options), empty_init=False).to(dtype)
            own = transformers.AutoConfig.for_model(config["model_type"], **options)
            module = getattr(transformers, class_of(config))(own)
            if class_of(config) in _HEADLESS:
                module.lm_head = torch.nn.Identity()  # as the family takes it away
            return module
    finally:
        torch.set_default_dtype(before)


def _z_image_of(controlnet: Mapping[str, Any]) -> Any:
    """A transformer for a ControlNet with these options."""
    width, heads = controlnet["dim"], controlnet["n_heads"]
    axes = [round(width // heads * share) for share in _Z_IMAGE_AXES]
    caption = round(width * _Z_IMAGE_CAPTION)
    return diffusers.ZImageTransformer2DModel(
        dim=width, n_heads=heads, n_layers=1, axes_dims=axes, cap_feat_dim=caption
    )


class _FullMask(torch.Tensor):
    """Mask (rows, tokens) without padding, whose sum is known although it has no values."""

    def sum(self, dim: int) -> torch.Tensor:  # type: ignore[override]
        """Number of tokens of each row."""
        return torch.full((self.shape[0],), self.shape[dim], device="cpu")


@dataclass(frozen=True)
class Inputs:
    """Arguments that a pipeline passes to a component in a call of this shape."""

    config: Mapping[str, Any]
    shape: WorkloadShape
    dtype: torch.dtype = torch.bfloat16

    def of(self, class_name: str) -> dict[str, Any]:
        """A component's arguments by name."""
        by_class: Mapping[str, Callable[[], dict[str, Any]]] = {
            "CLIPTextModel": lambda: {"input_ids": self._ids(_CLIP_TOKENS)},
            "CLIPTextModelWithProjection": lambda: {"input_ids": self._ids(_CLIP_TOKENS)},
            "Mistral3ForConditionalGeneration": lambda: {**self._language_model(), "use_cache": False},
            "AutoencoderKLFlux2": lambda: {"z": self._latents(self.config["latent_channels"])},
            "Qwen2_5_VLForConditionalGeneration": self._vision_model,
            "AutoencoderKLQwenImage": lambda: {"z": self._frames(self.config["z_dim"])},
            "AutoencoderKL": lambda: {"z": self._latents(self.config["latent_channels"])},
            "AutoencoderTiny": lambda: {"x": self._latents(self.config["latent_channels"])},
            "UNet2DConditionModel": self._unet,
            "SD3Transformer2DModel": self._sd3,
            "Lumina2Transformer2DModel": self._lumina2,
            "ChatGLMModel": self._chatglm,
            "BertModel": lambda: self._encoder(_CLIP_TOKENS),
            "HunyuanDiT2DModel": self._hunyuandit,
            "HunyuanDiT2DControlNetModel": lambda: {
                **self._hunyuandit(),
                "controlnet_cond": self._latents(self.config["in_channels"]),
            },
            "AutoencoderDC": lambda: {"z": self._latents(self.config["latent_channels"])},
            "ZImageTransformer2DModel": self._z_image,
            "ZImageControlNetModel": self._z_image_controlnet,
            "ControlNetModel": lambda: {**self._unet(), "controlnet_cond": self.image()},
            "ControlNetUnionModel": self._union,
            "T2IAdapter": lambda: {"x": self.image()},
            "SD3ControlNetModel": lambda: {
                **self._sd3(),
                "controlnet_cond": self._latents(16 + self.config.get("extra_conditioning_channels", 0)),
            },
        }
        return by_class[class_name]() if class_name in by_class else self._by_name(class_name)

    def _by_name(self, class_name: str) -> dict[str, Any]:
        """What a text encoder, or a denoiser or ControlNet of latents, is given for arguments of these names.

        Without a mask of packed latents: Chroma's grows with the square of all tokens, half a percent of a call at
        1024², and Qwen-Image's prompts are of one length in a call.
        """
        component_class: Any = getattr(diffusers, class_name, None) or getattr(transformers, class_name)
        taken = inspect.signature(component_class.forward).parameters
        if "input_ids" in taken:
            is_decoder = "position_ids" in taken
            return self._language_model() if is_decoder else {"input_ids": self._ids(self.shape.text_tokens)}
        config, tokens, size = self.config, self.shape.text_tokens, self._empty(2)
        latents = self._packed if taken.keys() & {"img_ids", "img_shapes"} else self._latents
        width = next((config[name] for name in _PROMPT_WIDTHS if name in config), 0)
        vector = config.get("pooled_projection_dim")
        given = {
            "hidden_states": latents(config["in_channels"]),
            "timestep": self._empty(),
            "encoder_hidden_states": self._empty(tokens, width),
            "encoder_attention_mask": self._empty(tokens),
            "pooled_projections": self._empty(vector) if vector else None,
            "added_cond_kwargs": {"resolution": size, "aspect_ratio": self._empty(1)},  # PixArt-α reads it
            "guidance": self._empty() if config.get("guidance_embeds") else None,
            "class_labels": self._empty().long(),
            "additional_t_cond": self._empty().long() if config.get("use_additional_t_cond") else None,
            "controlnet_cond": latents(config["in_channels"] + config.get("extra_condition_channels", 0)),
            "img_ids": self._positions(self.shape.pixels // 256),
            "txt_ids": self._positions(tokens),
            "img_shapes": [[(1, self.shape.height // 16, self.shape.width // 16)]] * len(size),
            **dict.fromkeys(("original_size", "target_size", "crop_coords"), size),
        }
        return {name: value for name, value in given.items() if name in taken and value is not None}

    def image(self) -> torch.Tensor:
        """An image for each row, as the VAE encodes it: some have a fourth channel, for transparency."""
        return self._empty(self.config.get("input_channels", 3), self.shape.height, self.shape.width)

    def _unet(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "sample": self._latents(self.config.get("in_channels", 4)),
            "timestep": self._empty(),
            "encoder_hidden_states": self._empty(_CLIP_TOKENS, self.config["cross_attention_dim"]),
        }
        if self.config.get("encoder_hid_dim"):
            width = self.config["encoder_hid_dim"]
            arguments["encoder_hidden_states"] = self._empty(self.shape.text_tokens, width)
        if self.config.get("class_embed_type") == "timestep":
            arguments["class_labels"] = self._empty()
        if self.config.get("addition_embed_type") == "text_time":
            width = self.config["projection_class_embeddings_input_dim"]
            pooled = self._empty(width - 6 * self.config["addition_time_embed_dim"])
            arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": self._empty(6)}
        return arguments

    def _union(self) -> dict[str, Any]:
        """One kind of control acts."""
        kinds = self._empty(self.config.get("num_control_type", 6))
        control = {"controlnet_cond": [self.image()], "control_type": kinds, "control_type_idx": [0]}
        return {**self._unet(), **control}

    def _sd3(self) -> dict[str, Any]:
        width, embeds = self.config["joint_attention_dim"], self.config.get("use_pos_embed", True)
        inner = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        return {
            # A ControlNet without a table of positions is given the transformer's tokens.
            "hidden_states": self._latents(16) if embeds else self._packed(inner),
            "encoder_hidden_states": width and self._empty(_CLIP_TOKENS + self.shape.text_tokens, width),
            "pooled_projections": self._empty(self.config["pooled_projection_dim"]),
            "timestep": self._empty(),
        }

    def _step(self) -> dict[str, Any]:
        return {"hidden_states": self._latents(self.config["in_channels"]), "timestep": self._empty()}

    def _lumina2(self) -> dict[str, Any]:
        tokens = self.shape.text_tokens
        return {
            **self._step(),
            "encoder_hidden_states": self._empty(tokens, self.config["cap_feat_dim"]),
            "encoder_attention_mask": torch.Tensor.as_subclass(self._empty(tokens), _FullMask),
        }

    def _hunyuandit(self) -> dict[str, Any]:
        """Its sequences have the lengths that it was made for, whatever a prompt's."""
        config = self.config
        positions = torch.empty(self.shape.pixels // 256, config["attention_head_dim"], device="meta")
        return {
            **self._step(),
            "encoder_hidden_states": self._empty(config["text_len"], config["cross_attention_dim"]),
            "text_embedding_mask": self._empty(config["text_len"]),
            "encoder_hidden_states_t5": self._empty(config["text_len_t5"], config["cross_attention_dim_t5"]),
            "text_embedding_mask_t5": self._empty(config["text_len_t5"]),
            "image_meta_size": self._empty(6),
            "style": self._empty().long(),
            "image_rotary_emb": (positions, positions),
        }

    def _z_image(self) -> dict[str, Any]:
        width = self.config.get("cap_feat_dim") or round(self.config["dim"] * _Z_IMAGE_CAPTION)
        prompts = self._empty(self.shape.text_tokens, width)
        return {
            "x": list(self._frames(self.config.get("in_channels", 16)).unbind()),
            "t": self._empty(),
            "cap_feats": list(prompts.unbind()),
        }

    def _z_image_controlnet(self) -> dict[str, Any]:
        return {**self._z_image(), "control_context": self._frames("control_in_dim")}

    def _vision_model(self) -> dict[str, Any]:
        arguments = self._language_model()
        return {**arguments, "position_ids": torch.stack([arguments["position_ids"]] * 3)}

    def _chatglm(self) -> dict[str, Any]:
        given = self._language_model()
        return {**given, "full_attention_mask": given.pop("attention_mask")}

    def _language_model(self) -> dict[str, Any]:
        return {**self._encoder(self.shape.text_tokens), "output_hidden_states": True}

    def _encoder(self, tokens: int) -> dict[str, Any]:
        """With a mask of all pairs, which transformers would make of the usual one with values of it."""
        return {
            "input_ids": self._ids(tokens),
            "position_ids": self._ids(tokens),
            "attention_mask": torch.empty(self.shape.images, 1, tokens, tokens, device="meta", dtype=torch.bool),
        }

    def _frames(self, channels: str | int) -> torch.Tensor:
        """Latents with an axis of one frame."""
        return self._latents(self.config[channels] if isinstance(channels, str) else channels).unsqueeze(2)

    def _ids(self, length: int) -> torch.Tensor:
        return torch.empty(self.shape.images, length, device="meta", dtype=torch.long)

    def _latents(self, channels: int) -> torch.Tensor:
        usual = 1 if works_on_pixels(self.config) else _USUAL_STRIDE
        stride = _STRIDES.get(class_of(self.config), usual)
        return self._empty(channels, self.shape.height // stride, self.shape.width // stride)

    def _packed(self, width: int) -> torch.Tensor:
        return self._empty(self.shape.pixels // 256, width)

    def _positions(self, tokens: int) -> torch.Tensor:
        axes = len(self.config.get("axes_dims_rope", "")) or _USUAL_AXES
        return torch.empty(tokens, axes, device="meta", dtype=self.dtype)

    def _empty(self, *sizes: int) -> torch.Tensor:
        rows = self.shape.images * self.shape.passes
        return torch.empty(rows, *sizes, device="meta", dtype=self.dtype)


def run_of(module: Any, inputs: Inputs, *, encode: bool = False) -> Callable[[], object]:
    """One call of a component, with its inputs made already."""
    if encode:
        image = inputs.image()
        return partial(module.encode, image.unsqueeze(2) if _has_frames(module) else image)
    return partial(getattr(module, "decode", module), **inputs.of(type(module).__name__))


def _has_frames(module: Any) -> bool:
    """Whether a VAE's images have an axis of frames."""
    return type(module).__name__ == "AutoencoderKLQwenImage"
