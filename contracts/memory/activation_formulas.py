"""What each class of component holds beyond its weights while it works, by its configuration.

The coefficients were counted, not fitted: the full-size architectures and the shapes models ran on torch's meta
device under a mode that follows every tensor from its birth to its end (`python -m bench.architectures` repeats it
and prints both). Attention is taken as fused, so that no matrix of scores exists; scratch memory of one kernel
and what an allocator wastes are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from contracts.memory.activations import NO_WORK, NOTHING_HELD, ActivationCost, Retained

#: Pixels of one image token of FLUX: a VAE stride of 8 and two latents packed, squared.
_TOKEN_PIXELS = 256
#: Pixels of one latent: the VAE's stride, squared.
_LATENT_PIXELS = 64
#: Tokens of a CLIP prompt.
_CLIP_TOKENS = 77
#: Times the width of a gated or a plain feed-forward layer.
_FEED_FORWARD = 6.5


def work_of(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """The moments at which a component may need most, by its configuration; empty for a class unknown here."""
    name = config.get("_class_name") or next(iter(config.get("architectures") or [""]))
    moments = _BY_CLASS.get(str(name))
    return () if moments is None else moments(config)


def adapted_work(config: Mapping[str, Any]) -> tuple[tuple[ActivationCost, ...], tuple[ActivationCost, ...]]:
    """A denoiser's moments more where an adapter acts on its layers, and where several do.

    Beside a layer's result stand what an adapter adds and their sum; of a second adapter, the sum before, too.
    Empty for other components.
    """
    adapted = _ADAPTED.get(str(config.get("_class_name")))
    return ((), ()) if adapted is None else (adapted(config, 2), adapted(config, 3))


def handed_work(config: Mapping[str, Any]) -> ActivationCost:
    """What a ControlNet hands to the denoiser, which keeps it until its own work is done; nothing for others."""
    handed = _HANDED.get(str(config.get("_class_name")))
    return NO_WORK if handed is None else handed(config)


def held_work(config: Mapping[str, Any]) -> Retained:
    """What is kept beside a denoiser; nothing for other components."""
    held = _HELD.get(str(config.get("_class_name")))
    return NOTHING_HELD if held is None else held(config)


def encoding_work(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """A VAE's moments while it encodes, which takes less than decoding unless guidance doubles the pictures."""
    channels = config.get("block_out_channels")
    return (ActivationCost(pixel=channels[0] * (3 + config["layers_per_block"])),) if channels else ()


def encodes_controls(config: Mapping[str, Any]) -> bool:
    """Whether this ControlNet wants its picture from the VAE, once for each pass of guidance."""
    return config.get("_class_name") in ("SD3ControlNetModel", "FluxControlNetModel")


def _clip(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    return (ActivationCost(fixed=_FEED_FORWARD * config["intermediate_size"] * _CLIP_TOKENS),)


def _t5(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """The gated feed-forward, and the table of tokens.

    Beside the former the position bias, one value a head for each pair of tokens.
    """
    width, inner = config["d_model"], config["d_ff"]
    gate = ActivationCost(token=_FEED_FORWARD * inner, token_squared=config["num_heads"], layers=2 * inner * width)
    return gate, ActivationCost(token=width, layers=config["vocab_size"] * width)


def _autoencoder(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """Decoding: the first residual block at full size holds its input, the norm of it and the activation.

    Beside it stands the image, as it was decoded before in the batch or as it is about to be.
    """
    channels = config["block_out_channels"]
    return (ActivationCost(pixel=3 * channels[min(1, len(channels) - 1)] + 3),)


def _unet(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """The last block: three skips and a residual block over their sum, or the feed-forward behind attention.

    Its layers are small. The largest are those of the innermost block, which works on the fewest values.
    """
    first, last = config["block_out_channels"][0], config["block_out_channels"][-1]
    width, layers = (25.0, 4 * first**2) if _attends_at_full_size(config) else (15.8, 16 * first**2)
    shifts = 2 if config.get("resnet_time_scale_shift") == "scale_shift" else 1
    return (
        ActivationCost(pixel=width * first / _LATENT_PIXELS, layers=layers),
        ActivationCost(pixel=6.4 * first / _LATENT_PIXELS, layers=18 * last**2 + 4 * first * last * shifts),
    )


def _unet_adapted(config: Mapping[str, Any], more: int) -> tuple[ActivationCost, ...]:
    """The widest layer of the last block, with so many results more."""
    first, attends = config["block_out_channels"][0], _attends_at_full_size(config)
    width, layers = (17.5 + 8 * more, 16 * first**2) if attends else (16.0 + more, 36 * first**2)
    return (ActivationCost(pixel=width * first / _LATENT_PIXELS, layers=layers),)


def _attends_at_full_size(config: Mapping[str, Any]) -> bool:
    return str(config["up_block_types"][-1]).startswith("CrossAttn")


def _sd3(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """The feed-forward of the image's stream, or of the text's (CLIP tokens and T5 tokens), beside the other."""
    return (*_two_streams(_width(config), _sd3_token_pixels(config)), *_sd3_places(config))


def _sd3_places(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """The table of places is the largest layer; it meets few values."""
    width, side = _width(config), config.get("pos_embed_max_size")
    small = _LATENT_PIXELS * width
    return (
        (ActivationCost(pixel=5 * width / _sd3_token_pixels(config), layers=width * side**2 + small),)
        if side
        else ()
    )


def _sd3_adapted(config: Mapping[str, Any], more: int) -> tuple[ActivationCost, ...]:
    """The feed-forward's first layer, with so many results more."""
    return _two_streams(_width(config), _sd3_token_pixels(config), most=9 + 4 * more)


def _two_streams(width: int, token_pixels: int, kept: int = 0, most: int = 13) -> tuple[ActivationCost, ...]:
    """The feed-forward of each stream.

    Args:
        kept: more tensors of the image's stream that stand beside.
        most: times the width of the stream at work.
    """
    return tuple(
        ActivationCost(
            pixel=(image + kept) * width / token_pixels,
            token=text * width,
            fixed=text * width * _CLIP_TOKENS,
            layers=5 * width**2,
        )
        for image, text in ((most, 5), (5, most))
    )


def _sd3_token_pixels(config: Mapping[str, Any]) -> int:
    return int(_LATENT_PIXELS * config["patch_size"] ** 2)


def _flux(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """A single-stream block: text and image in one sequence, attention and feed-forward side by side."""
    width = _width(config)
    return ActivationCost(pixel=17 * width / _TOKEN_PIXELS, token=17 * width, layers=8 * width**2), _flux_shift(
        width
    )


def _flux_shift(width: int) -> ActivationCost:
    """The largest layers, which shift a double-stream block's norms; they meet fewer values."""
    return ActivationCost(pixel=10 * width / _TOKEN_PIXELS, token=10 * width, layers=10 * width**2)


def _width(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])


# -- ControlNets --------------------------------------------------------------------------------------------


def _unet_control(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """Its picture, convolved at full size; the innermost block; in the end what it hands over, thrice.

    The samples, their projections, and these scaled.
    """
    first, last = config["block_out_channels"][0], config["block_out_channels"][-1]
    thin, next_one = config.get("conditioning_embedding_out_channels", (16, 32, 96, 256))[:2]
    handed = _unet_handed(config).pixel
    return (
        ActivationCost(pixel=2 * thin + first / _LATENT_PIXELS, layers=9 * thin * (thin + next_one)),
        ActivationCost(pixel=1.8 * handed, layers=12 * last**2),
        ActivationCost(pixel=3 * handed, layers=last**2),
    )


def _unet_handed(config: Mapping[str, Any]) -> ActivationCost:
    """One tensor for each of the UNet's skips, and one for its middle."""
    channels = config["block_out_channels"]
    values = float(channels[0] + channels[-1] / 4 ** (len(channels) - 1))
    for level, width in enumerate(channels):
        values += config["layers_per_block"] * width / 4**level
    for level, width in enumerate(channels[:-1], start=1):
        values += width / 4**level
    return ActivationCost(pixel=values / _LATENT_PIXELS)


def _sd3_control(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """As the transformer, beside the blocks' samples; in the end these, their projections, and these scaled."""
    width, token_pixels, count = _width(config), _sd3_token_pixels(config), config["num_layers"]
    end = ActivationCost(pixel=3 * count * width / token_pixels, token=width, fixed=width * _CLIP_TOKENS, layers=0)
    return (*_two_streams(width, token_pixels, count - 1), end, *_sd3_places(config))


def _sd3_handed(config: Mapping[str, Any]) -> ActivationCost:
    """One tensor for each of its blocks."""
    return ActivationCost(pixel=config["num_layers"] * _width(config) / _sd3_token_pixels(config))


def _flux_control(config: Mapping[str, Any]) -> tuple[ActivationCost, ...]:
    """As SD3's, with blocks of two kinds."""
    width, count = _width(config), config["num_layers"] + config["num_single_layers"]
    image, text, layers = (15, 17.0, 8) if config["num_single_layers"] else (12, 11.5, 4)
    return (
        ActivationCost(
            pixel=(image + count) * width / _TOKEN_PIXELS, token=text * width, layers=layers * width**2
        ),
        ActivationCost(pixel=3 * count * width / _TOKEN_PIXELS, token=2 * width, layers=width**2),
        _flux_shift(width),
    )


def _flux_handed(config: Mapping[str, Any]) -> ActivationCost:
    count = config["num_layers"] + config["num_single_layers"]
    return ActivationCost(pixel=count * _width(config) / _TOKEN_PIXELS)


# -- what is kept -------------------------------------------------------------------------------------------


def _unet_held(config: Mapping[str, Any]) -> Retained:
    prompt = ActivationCost(fixed=config["cross_attention_dim"] * _CLIP_TOKENS)
    return Retained(ActivationCost(pixel=config["out_channels"] / _LATENT_PIXELS), prompt)


def _sd3_held(config: Mapping[str, Any]) -> Retained:
    width = config["joint_attention_dim"]
    return Retained(
        ActivationCost(pixel=config["out_channels"] / _LATENT_PIXELS),
        ActivationCost(token=width, fixed=width * _CLIP_TOKENS),
    )


def _flux_held(config: Mapping[str, Any]) -> Retained:
    latents = ActivationCost(pixel=config["in_channels"] / _TOKEN_PIXELS)
    return Retained(latents, ActivationCost(token=config["joint_attention_dim"]))


_BY_CLASS: Mapping[str, Callable[[Mapping[str, Any]], tuple[ActivationCost, ...]]] = MappingProxyType(
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
#: FLUX.1's widest moment is another one than that of its adapters.
_ADAPTED: Mapping[str, Callable[[Mapping[str, Any], int], tuple[ActivationCost, ...]]] = MappingProxyType(
    {"UNet2DConditionModel": _unet_adapted, "SD3Transformer2DModel": _sd3_adapted}
)
_HANDED: Mapping[str, Callable[[Mapping[str, Any]], ActivationCost]] = MappingProxyType(
    {"ControlNetModel": _unet_handed, "SD3ControlNetModel": _sd3_handed, "FluxControlNetModel": _flux_handed}
)
_HELD: Mapping[str, Callable[[Mapping[str, Any]], Retained]] = MappingProxyType(
    {"UNet2DConditionModel": _unet_held, "SD3Transformer2DModel": _sd3_held, "FluxTransformer2DModel": _flux_held}
)
