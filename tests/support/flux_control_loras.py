"""Small FLUX Control LoRAs, in the layout of Black Forest Labs' and in diffusers'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
_RANK = 4
#: Layer of the original release -> the layers of diffusers that it joins.
_OUTSIDE = {
    "img_in": ["x_embedder"], "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "final_layer.linear": ["proj_out"], "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}  # fmt: skip
_DOUBLE = {
    "img_mod.lin": ["norm1.linear"], "txt_mod.lin": ["norm1_context.linear"],
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"], "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.net.0.proj"], "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"], "txt_mlp.2": ["ff_context.net.2"],
}  # fmt: skip
_SINGLE = {
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear2": ["proj_out"],
    "modulation.lin": ["norm.linear"],
}  # fmt: skip
_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k",
}  # fmt: skip


def control_lora(transformer: Any, rank: int = _RANK) -> tuple[Tensors, Tensors]:
    """Make a Control LoRA for a FLUX.1 transformer, with a bias in every layer and all norms.

    Args:
        transformer: whose weights may have no values.

    Returns:
        Its tensors under the names of the original release, and the same LoRA under diffusers' names.
    """
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    original: Tensors = {}
    renamed: Tensors = {}
    for name, layers in _layers(transformer.config):
        modules = [transformer.get_submodule(layer) for layer in layers]
        inputs = modules[0].in_features * (2 if name == "img_in" else 1)
        outputs = [module.out_features for module in modules]
        down, up, bias = draw(rank, inputs), draw(sum(outputs), rank), draw(sum(outputs))
        original |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_B.bias": bias}
        if name == "final_layer.adaLN_modulation.1":  # shift and scale are the other way round
            up, bias = (torch.cat(tensor.chunk(2)[::-1]) for tensor in (up, bias))
        for layer, own_up, own_bias in zip(
            layers, torch.split(up, outputs), torch.split(bias, outputs), strict=True
        ):
            renamed[f"transformer.{layer}.lora_A.weight"] = down.clone()
            renamed[f"transformer.{layer}.lora_B.weight"] = own_up.clone()
            renamed[f"transformer.{layer}.lora_B.bias"] = own_bias.clone()
    for name, layer in _norms(transformer.config):
        original[f"{name}.scale"] = 1 + draw(transformer.config.attention_head_dim)
        renamed[f"transformer.{layer}.weight"] = original[f"{name}.scale"].clone()
    return original, renamed


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield from _OUTSIDE.items()
    for kind, blocks, table, count in (
        ("double_blocks", "transformer_blocks", _DOUBLE, config["num_layers"]),
        ("single_blocks", "single_transformer_blocks", _SINGLE, config["num_single_layers"]),
    ):
        for number in range(count):
            for name, layers in table.items():
                yield f"{kind}.{number}.{name}", [f"{blocks}.{number}.{layer}" for layer in layers]


def _norms(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number in range(config["num_layers"]):
        for name, layer in _NORMS.items():
            yield f"double_blocks.{number}.{name}", f"transformer_blocks.{number}.{layer}"
    for number in range(config["num_single_layers"]):
        for of in ("query", "key"):
            layer = f"single_transformer_blocks.{number}.attn.norm_{of[0]}"
            yield f"single_blocks.{number}.norm.{of}_norm", layer
