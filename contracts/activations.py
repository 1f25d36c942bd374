"""How many values a component holds beyond its weights while it works: linear in pixels and prompt tokens.

The coefficients were counted, not fitted: the full-size architectures and the shapes models ran on torch's meta
device under a mode that follows every tensor from its birth to its end (`python -m bench.architectures` repeats it
and prints both). Attention is taken as fused, so that no matrix of scores exists; scratch memory of one kernel
and what an allocator wastes are not seen. It knows nothing of budgets or placements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

#: Pixels of one image token of FLUX: a VAE stride of 8 and two latents packed, squared.
_TOKEN_PIXELS = 256
#: Pixels of one latent: the VAE's stride, squared.
_LATENT_PIXELS = 64
#: Tokens of a CLIP prompt.
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class Canvas:
    """What is painted in one pipeline call.

    Attributes:
        width, height: pixels of one image.
        images: in the call.
        guided: whether one step denoises every image with and without the prompt at once.
        text_tokens: length of a T5 prompt.
        pictures: that come with the request, each as large as the image: one to start from, one a ControlNet.
    """

    width: int
    height: int
    images: int = 1
    guided: bool = True
    text_tokens: int = 512
    pictures: int = 0

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.width * self.height

    @property
    def passes(self) -> int:
        """Times that one image goes through the denoiser at once."""
        return 2 if self.guided else 1

    @property
    def picture_values(self) -> int:
        """What the pictures of one image take throughout: three channels, once for each pass."""
        return 3 * self.pixels * self.pictures * self.passes


@dataclass(frozen=True)
class Work:
    """Values that one image takes at one moment of a component's work.

    Attributes:
        pixel: for each of its pixels.
        token: for each T5 token of its prompt.
        token_squared: for each pair of them; once a call, not once an image.
        fixed: whatever its size.
    """

    pixel: float = 0.0
    token: float = 0.0
    token_squared: float = 0.0
    fixed: float = 0.0

    def values(self, canvas: Canvas, images: float, pixels: int) -> float:
        """Of so many images of so many pixels."""
        each = self.pixel * pixels + self.token * canvas.text_tokens + self.fixed
        return images * each + self.token_squared * canvas.text_tokens**2


def most_values(moments: Iterable[Work], canvas: Canvas, images: float, pixels: int | None = None) -> float:
    """Values at the worst of a component's moments; `pixels` of one image, unless they are the canvas'."""
    area = canvas.pixels if pixels is None else pixels
    return max((moment.values(canvas, images, area) for moment in moments), default=0.0)


def work_of(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """The moments at which a component may need most, by its configuration; empty for a class unknown here."""
    name = config.get("_class_name") or next(iter(config.get("architectures") or [""]))
    moments = _BY_CLASS.get(str(name))
    return () if moments is None else moments(config)


def encoding_work(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """A VAE's moments while it encodes, which takes less than decoding unless guidance doubles the pictures."""
    channels = config.get("block_out_channels")
    return (Work(pixel=channels[0] * (3 + config["layers_per_block"])),) if channels else ()


def encodes_controls(config: Mapping[str, Any]) -> bool:
    """Whether this ControlNet wants its picture from the VAE, once for each pass of guidance."""
    return config.get("_class_name") in ("SD3ControlNetModel", "FluxControlNetModel")


def _clip(config: Mapping[str, Any]) -> tuple[Work, ...]:
    return (Work(fixed=_FEED_FORWARD * config["intermediate_size"] * _CLIP_TOKENS),)


def _t5(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """The gated feed-forward; beside it the position bias, one value a head for each pair of tokens."""
    return (Work(token=_FEED_FORWARD * config["d_ff"], token_squared=config["num_heads"]),)


def _autoencoder(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """Decoding: the first residual block at full size holds its input, the norm of it and the activation.

    Beside it stands the image, as it was decoded before in the batch or as it is about to be.
    """
    channels = config["block_out_channels"]
    return (Work(pixel=3 * channels[min(1, len(channels) - 1)] + 3),)


def _unet(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """The last block: three skips and a residual block over their sum, or the feed-forward behind attention.

    Beside it the embeddings of the prompt, of which guidance keeps a copy.
    """
    attends_at_full_size = str(config["up_block_types"][-1]).startswith("CrossAttn")
    width = 25.5 if attends_at_full_size else 15.8
    embedding = 1.3 * _CLIP_TOKENS * config["cross_attention_dim"]
    return (Work(pixel=width * config["block_out_channels"][0] / _LATENT_PIXELS, fixed=embedding),)


def _sd3(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """The feed-forward of the image's stream, or of the text's (CLIP tokens and T5 tokens), beside the other.

    Beside them the embeddings of the prompt, of which guidance keeps a copy.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    moments = []
    for image, text in ((13, 5), (5, 13)):
        token = text * width + config["joint_attention_dim"]
        moments.append(
            Work(pixel=image * width / _sd3_token_pixels(config), token=token, fixed=token * _CLIP_TOKENS)
        )
    return tuple(moments)


def _sd3_token_pixels(config: Mapping[str, Any]) -> int:
    return int(_LATENT_PIXELS * config["patch_size"] ** 2)


def _flux(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """A single-stream block: text and image in one sequence, attention and feed-forward side by side."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return (Work(pixel=17 * width / _TOKEN_PIXELS, token=17 * width),)


def _unet_control(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """What it hands to the UNet: one tensor for each of its skips."""
    channels = config["block_out_channels"]
    values = float(channels[0] + channels[-1] / 4 ** (len(channels) - 1))
    for level, width in enumerate(channels):
        values += config["layers_per_block"] * width / 4**level
    for level, width in enumerate(channels[:-1], start=1):
        values += width / 4**level
    return (Work(pixel=values / _LATENT_PIXELS),)


def _sd3_control(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """What it hands to the transformer: one tensor for each of its blocks."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return (Work(pixel=config["num_layers"] * width / _sd3_token_pixels(config)),)


def _flux_control(config: Mapping[str, Any]) -> tuple[Work, ...]:
    """As SD3's, with blocks of two kinds."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return (Work(pixel=(config["num_layers"] + config["num_single_layers"]) * width / _TOKEN_PIXELS),)


#: Times the width of a gated or a plain feed-forward layer.
_FEED_FORWARD = 6.5

_BY_CLASS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Work, ...]]] = MappingProxyType(
    {
        "CLIPTextModel": _clip,
        "CLIPTextModelWithProjection": _clip,
        "T5EncoderModel": _t5,
        "AutoencoderKL": _autoencoder,
        "UNet2DConditionModel": _unet,
        "SD3Transformer2DModel": _sd3,
        "FluxTransformer2DModel": _flux,
        "ControlNetModel": _unet_control,
        "SD3ControlNetModel": _sd3_control,
        "FluxControlNetModel": _flux_control,
    }
)
