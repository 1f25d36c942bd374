"""Which layers the names of the original SDXL and FLUX releases stand for, as kohya's LoRAs have them.

Names are flat, with `_` for dots, on both sides. Knows no files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: Flat names of a denoiser's layers -> the shapes of their weights.
Shapes = Mapping[str, tuple[int, ...]]

_RESNET = {
    "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut", "in_layers_0": "norm1", "out_layers_0": "norm2",
}  # fmt: skip
_UNET = {
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip
_UNET_BLOCK = re.compile(r"^(?P<side>input|output)_blocks_(?P<number>\d+)_(?P<part>\d)_(?P<layer>.+)$")
_UNET_MIDDLE = re.compile(r"^middle_block_(?P<part>[012])_(?P<layer>.+)$")
_FLUX_BLOCK = re.compile(r"^(?P<kind>double|single)_blocks_(?P<number>\d+)_(?P<layer>.+)$")
_DOUBLE: Mapping[str, Sequence[str]] = {
    "img_attn_qkv": ("attn_to_q", "attn_to_k", "attn_to_v"),
    "txt_attn_qkv": ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj"),
    "img_attn_proj": ("attn_to_out_0",), "txt_attn_proj": ("attn_to_add_out",),
    "img_mlp_0": ("ff_net_0_proj",), "img_mlp_2": ("ff_net_2",),
    "txt_mlp_0": ("ff_context_net_0_proj",), "txt_mlp_2": ("ff_context_net_2",),
    "img_mod_lin": ("norm1_linear",), "txt_mod_lin": ("norm1_context_linear",),
}  # fmt: skip
_SINGLE: Mapping[str, Sequence[str]] = {
    "linear1": ("attn_to_q", "attn_to_k", "attn_to_v", "proj_mlp"), "linear2": ("proj_out",),
    "modulation_lin": ("norm_linear",),
}  # fmt: skip


def layers_named(name: str, shapes: Shapes) -> list[str] | None:
    """Return the layers of a model that one of these names stands for, some of which it may lack.

    Args:
        name: flat, without the prefix of a trainer.

    Returns:
        More than one where the original joins them along their outputs; None for a name of another kind, or a
        model whose blocks are not those of a release.
    """
    if match := _FLUX_BLOCK.match(name):
        table, blocks = (_DOUBLE, "transformer") if match["kind"] == "double" else (_SINGLE, "single_transformer")
        if match["layer"] not in table:
            return None
        return [f"{blocks}_blocks_{match['number']}_{layer}" for layer in table[match["layer"]]]
    if name in _UNET:
        return [_UNET[name]]
    if match := _UNET_MIDDLE.match(name):
        part, layer = int(match["part"]), match["layer"]
        if part == 1:
            return [f"mid_block_attentions_0_{layer}"]
        return [f"mid_block_resnets_{part // 2}_{_RESNET[layer]}"] if layer in _RESNET else None
    match = _UNET_BLOCK.match(name)
    return None if match is None else _in_unet_block(match, shapes)


def _in_unet_block(match: re.Match[str], shapes: Shapes) -> list[str] | None:
    rows = _resnets_per_block(shapes)
    if rows is None:
        return None
    number, part, layer = int(match["number"]), int(match["part"]), match["layer"]
    if match["side"] == "input":
        block, index = divmod(number - 1, rows + 1)
        prefix = f"down_blocks_{block}"
        if (part, layer) == (0, "op"):
            return [f"{prefix}_downsamplers_0_conv"]
    else:
        block, index = divmod(number, rows + 1)
        prefix = f"up_blocks_{block}"
        if layer == "conv":
            return [f"{prefix}_upsamplers_0_conv"]
    if part == 0:
        return [f"{prefix}_resnets_{index}_{_RESNET[layer]}"] if layer in _RESNET else None
    return [f"{prefix}_attentions_{index}_{layer}"]


def _resnets_per_block(shapes: Shapes) -> int | None:
    """How many each block of the first half has; None where they differ."""
    found: dict[str, set[str]] = {}
    for name in shapes:
        if match := re.match(r"down_blocks_(\d+)_resnets_(\d+)_", name):
            found.setdefault(match[1], set()).add(match[2])
    counts = {len(numbers) for numbers in found.values()}
    return counts.pop() if len(counts) == 1 else None
