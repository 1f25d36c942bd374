"""Tensors of transformers as their releases name and join them, and GGUF files after them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]

#: Patterns of diffusers' names -> what stands there in the release.
_FLUX_NAMES = {
    r"(transformer_blocks\.\d+)\.attn\.norm_q\.weight": r"\1.norm.query_norm.scale",
    r"(transformer_blocks\.\d+)\.attn\.norm_k\.weight": r"\1.norm.key_norm.scale",
    r"\.attn\.norm_added_q\.weight": ".txt_attn.norm.query_norm.scale",
    r"\.attn\.norm_added_k\.weight": ".txt_attn.norm.key_norm.scale",
    r"^single_transformer_blocks": "single_blocks",
    r"^transformer_blocks\.(\d+)\.norm\.": r"double_blocks.\1.img_attn.norm.",
    r"^transformer_blocks": "double_blocks",
    r"\.attn\.to_out\.0\.": ".img_attn.proj.",
    r"\.attn\.to_add_out\.": ".txt_attn.proj.",
    r"^x_embedder\.": "img_in.",
    r"^context_embedder\.": "txt_in.",
    r"^proj_out\.": "final_layer.linear.",
}
_FLUX_JOINED = {
    ".img_attn.qkv.": (".attn.to_q.", ".attn.to_k.", ".attn.to_v."),
    ".txt_attn.qkv.": (".attn.add_q_proj.", ".attn.add_k_proj.", ".attn.add_v_proj."),
}
_CHROMA_NAMES = {
    r"^(single_transformer_blocks\.\d+)\.attn\.to_([qkv])\.": r"\1.\2.",
    r"^(single_transformer_blocks\.\d+)\.proj_mlp\.": r"\1.mlp.",
    r"^(single_transformer_blocks\.\d+)\.proj_out\.": r"\1.linear2.",
    r"\.ff\.net\.(0\.proj|2)\.": lambda found: f".img_mlp.{found[1][0]}.",
    r"\.ff_context\.net\.(0\.proj|2)\.": lambda found: f".txt_mlp.{found[1][0]}.",
    r"^(distilled_guidance_layer\.layers\.\d+)\.linear_1\.": r"\1.in_layer.",
    r"^(distilled_guidance_layer\.layers\.\d+)\.linear_2\.": r"\1.out_layer.",
    r"^(distilled_guidance_layer\.norms\.\d+)\.weight": r"\1.scale",
    **_FLUX_NAMES,
}
_FLUX2_NAMES = {
    r"\.attn\.to_qkv_mlp_proj\.": ".linear1.",
    r"^(single_transformer_blocks\.\d+)\.attn\.to_out\.": r"\1.linear2.",
    r"\.ff\.linear_in\.": ".img_mlp.0.",
    r"\.ff\.linear_out\.": ".img_mlp.2.",
    r"\.ff_context\.linear_in\.": ".txt_mlp.0.",
    r"\.ff_context\.linear_out\.": ".txt_mlp.2.",
    r"^time_guidance_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"^time_guidance_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"^time_guidance_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"^time_guidance_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"^(.*_modulation.*)\.linear\.": r"\1.lin.",
    r"^norm_out\.linear\.": "final_layer.adaLN_modulation.1.",
    **_FLUX_NAMES,
}
_LUMINA2_NAMES = {
    r"^time_caption_embed\.caption_embedder": "cap_embedder",
    r"^time_caption_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"^time_caption_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"^norm_out\.linear_1": "final_layer.adaLN_modulation.1",
    r"^norm_out\.linear_2": "final_layer.linear",
    r"\.norm1\.linear\.": ".adaLN_modulation.1.",
    r"\.norm1\.(norm\.)?": ".attention_norm1.",
    r"\.norm2\.": ".attention_norm2.",
    r"\.attn\.to_out\.0\.": ".attention.out.",
    r"\.attn\.norm_([qk])\.": r".attention.\1_norm.",
    r"\.feed_forward\.linear_(\d)\.": r".feed_forward.w\1.",
}
_SANA_NAMES = {
    r"^patch_embed\.": "x_embedder.",
    r"^time_embed\.emb\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"^time_embed\.emb\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"^time_embed\.linear": "t_block.1",
    r"^caption_projection\.linear_": "y_embedder.y_proj.fc",
    r"^caption_norm": "attention_y_norm",
    r"^transformer_blocks": "blocks",
    r"\.attn1\.to_out\.0\.": ".attn.proj.",
    r"\.attn2\.to_out\.0\.": ".cross_attn.proj.",
    r"\.attn2\.to_q\.": ".cross_attn.q_linear.",
    r"\.ff\.conv_(inverted|depth|point)\.": r".mlp.\1_conv.conv.",
    r"^proj_out\.": "final_layer.linear.",
    r"^scale_shift_table": "final_layer.scale_shift_table",
}
_Z_IMAGE_NAMES = {
    r"^all_final_layer\.2-1\.": "final_layer.",
    r"^all_x_embedder\.2-1\.": "x_embedder.",
    r"\.to_out\.0\.": ".out.",
    r"\.norm_([qk])\.": r".\1_norm.",
}


@dataclass(frozen=True)
class _Layout:
    """A release's layout.

    Attributes:
        names: patterns of diffusers' names -> what stands there in the release.
        joined: part of a tensor's name -> that part in the names of those that it is made of.
        unused: tensors that no layer takes -> their shapes.
        swapped: tensors whose halves are in the other order.
    """

    names: Mapping[str, Any]
    joined: Mapping[str, Sequence[str]]
    unused: Mapping[str, Sequence[int]] = field(default_factory=dict)
    swapped: Sequence[str] = ()


_LAYOUTS = {
    "chroma": _Layout(_CHROMA_NAMES, {**_FLUX_JOINED, ".linear1.": (".q.", ".k.", ".v.", ".mlp.")}),
    "flux2": _Layout(_FLUX2_NAMES, _FLUX_JOINED, swapped=("final_layer.adaLN_modulation.1.weight",)),
    "lumina2": _Layout(
        _LUMINA2_NAMES,
        {".attention.qkv.": (".attn.to_q.", ".attn.to_k.", ".attn.to_v.")},
        unused={"norm_final.weight": (8,)},
    ),
    "qwen-image": _Layout({}, {}),
    "sana": _Layout(
        _SANA_NAMES,
        {
            ".attn.qkv.": (".attn1.to_q.", ".attn1.to_k.", ".attn1.to_v."),
            ".cross_attn.kv_linear.": (".attn2.to_k.", ".attn2.to_v."),
        },
        unused={"pos_embed": (1, 4, 8), "y_embedder.y_embedding": (4, 8)},
    ),
    "z-image": _Layout(
        _Z_IMAGE_NAMES, {".qkv.": (".to_q.", ".to_k.", ".to_v.")}, unused={"norm_final.weight": (8,)}
    ),
}


def released(family: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return a transformer's tensors in its release's layout, those that no layer takes among them."""
    layout = _LAYOUTS[family]
    result = _joined(_renamed(tensors, layout.names), layout.joined)
    for name in layout.swapped:
        result[name] = torch.cat(list(reversed(result[name].chunk(2))))
    return result | {name: torch.ones(*shape) for name, shape in layout.unused.items()}


def _renamed(tensors: Tensors, names: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    result = {}
    for name, tensor in tensors.items():
        for pattern, there in names.items():
            name = re.sub(pattern, there, name)
        result[name] = tensor
    return result


def _joined(tensors: Tensors, wholes: Mapping[str, Sequence[str]]) -> dict[str, torch.Tensor]:
    """The tensors with those that differ in one part of their names as one, rows below rows."""
    result = dict(tensors)
    for whole, parts in wholes.items():
        for name in [name for name in result if parts[0] in name]:
            result[name.replace(parts[0], whole)] = torch.cat(
                [result.pop(name.replace(parts[0], part)) for part in parts]
            )
    return result
