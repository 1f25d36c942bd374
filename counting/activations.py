"""Counts what is alive while a component runs, on torch's meta device: an entry of its class's activation table.

`python -m bench.architectures --write` writes the tables, which memory plans read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.memory.activation_tables import class_of
from contracts.memory.activations import ActivationCost
from counting.component_calls import ONE_BY_ONE, Inputs, build, run_of
from counting.flops import nonzero
from counting.live_tensors import Follower, find_peaks, shapes_of
from worker.adapters.low_rank import LowRank
from worker.adapters.row_hooks import LoraHook

#: Entries that shape activations; configurations that agree in them share an entry of the table.
_SHAPING = (
    "block_out_channels", "encoder_block_out_channels", "decoder_block_out_channels",
    "down_block_types", "layers_per_block", "transformer_layers_per_block",
    "cross_attention_dim", "resnet_time_scale_shift", "conditioning_embedding_out_channels", "latent_channels",
    "num_attention_heads", "attention_head_dim", "num_layers", "num_single_layers", "patch_size", "in_channels",
    "caption_channels", "approximator_num_channels", "approximator_hidden_dim", "approximator_layers",
    "joint_attention_dim", "text_embed_dim", "pos_embed_max_size", "dual_attention_layers",
    "hidden_size", "intermediate_size", "d_model", "d_ff", "num_heads", "vocab_size",
    "base_dim", "dim_mult", "num_res_blocks", "extra_condition_channels", "transformer_num_layers",
    "encoder_hid_dim", "channels", "adapter_type", "downscale_factor",
    "dim", "n_layers", "n_heads", "cap_feat_dim", "control_in_dim", "control_layers_places",
    "num_trans_channel", "num_trans_layer",
)  # fmt: skip
#: Of a denoiser's equal blocks so many are counted: more do not change its peaks. A ControlNet's do.
_DEPTHS, _DEPTH = ("num_layers", "num_single_layers", "n_layers"), 4
#: Rank of the adapters that are counted; it hardly matters.
_RANK = 16


def count_activations(config: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a class's table: everything counted for this configuration."""
    class_name = class_of(config)
    if _is_transformer(config):
        config = {**config, **{key: min(config[key], _DEPTH) for key in _DEPTHS if key in config}}
    module = build(config)
    shapes = shapes_of(class_name, listed=class_name in ONE_BY_ONE)
    calls = [Inputs(config, shape) for shape in shapes]
    for call in calls:
        if "img_shapes" in call.of(class_name):
            run_of(module, call)()  # what it remembers of each size is there from then on
    follower = Follower(module, torch.bfloat16.itemsize)

    def peaks(
        known: Sequence[ActivationCost] = (), *, adapters: int = 0, encode: bool = False
    ) -> tuple[list[ActivationCost], list[ActivationCost], ActivationCost]:
        """Costs beyond the known ones, further ones of convolutions in cuDNN, and what is left at the end."""
        plain_known = [cost for cost in known if not cost.cudnn]
        with _adapted(module, adapters):
            runs = [follower.follow(run_of(module, call, encode=encode)) for call in calls]
        plain, result = find_peaks([steps for steps, _ in runs], plain_known, shapes)
        cudnn, _ = find_peaks([steps for _, steps in runs], [*known, *plain], shapes)
        return plain, [replace(cost, cudnn=True) for cost in cudnn], result

    plain, cudnn, result = peaks()
    entry: dict[str, Any] = {"config": {key: value for key, value in shaping(config).items() if value is not None}}
    entry["peaks"] = [nonzero(cost) for cost in (*plain, *cudnn)]
    arguments = calls[0].of(class_name)
    images = ("controlnet_cond", "control_context", *["x"] * (class_name == T2I_ADAPTER))
    control = next((name for name in images if name in arguments), None)
    if control is not None:
        entry["residuals"] = nonzero(result)
        entry["encodes_controls"] = _values(arguments[control]) < calls[0].image().numel()
    elif hasattr(module, "decode"):
        plain, cudnn, _ = peaks(encode=True)
        entry["encoding"] = [nonzero(cost) for cost in (*plain, *cudnn)]
    elif not arguments.keys().isdisjoint({"timestep", "t"}):
        one = [cost for costs in peaks([*plain, *cudnn], adapters=1)[:2] for cost in costs]
        more = [cost for costs in peaks([*plain, *cudnn, *one], adapters=2)[:2] for cost in costs]
        entry["one_adapter"] = [nonzero(cost) for cost in one]
        entry["more_adapters"] = [nonzero(cost) for cost in more]
        entry["latents"] = nonzero(_size_of(("sample", "hidden_states", "x"), calls, class_name))
        if "class_labels" not in arguments:
            entry["prompt"] = nonzero(_size_of(("encoder_hidden_states", "cap_feats"), calls, class_name))
    return entry


def shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a configuration that shape activations; None for those that it lacks."""
    config = {**config.get("text_config", {}), **config}  # of a model that reads images, too
    depthless = _DEPTHS if _is_transformer(config) else ()
    return {key: config.get(key) for key in _SHAPING if key not in depthless}


def _is_transformer(config: Mapping[str, Any]) -> bool:
    return class_of(config).endswith("Transformer2DModel")


def _size_of(names: Sequence[str], calls: Sequence[Inputs], class_name: str) -> ActivationCost:
    """Values of one image's argument of one of these names."""
    every = [call.of(class_name) for call in calls]
    name = next(name for name in names if name in every[0])
    values = [[_values(arguments[name]) / call.shape.images] for arguments, call in zip(every, calls, strict=True)]
    terms = [(call.shape.pixels, call.shape.text_tokens, 1) for call in calls]
    solved = torch.linalg.lstsq(
        torch.tensor(terms, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    )
    pixel, token, fixed = (round(float(factor), 6) for factor in solved.solution.flatten())
    return ActivationCost(pixel=pixel, token=token, fixed=fixed)


def _values(argument: Any) -> int:
    return sum(item.numel() for item in (argument if isinstance(argument, list) else [argument]))


def _adapted(module: Any, adapters: int) -> ExitStack:
    """Inside, this many adapters act on every layer that adapters can change."""
    hooks = ExitStack()
    for layer in module.modules() if adapters else ():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and getattr(layer, "groups", 1) == 1:
            hook = LoraHook([(_low_rank(layer).scaled(layer, 0.5), None)] * adapters)
            hooks.callback(layer.register_forward_hook(hook, prepend=True).remove)
    return hooks


def _low_rank(layer: torch.nn.Linear | torch.nn.Conv2d) -> LowRank:
    outputs, *inputs = layer.weight.shape
    kernel = [1] * (len(inputs) - 1)
    return LowRank(layer.weight.new_empty(_RANK, *inputs), layer.weight.new_empty(outputs, _RANK, *kernel), 1.0)


def render(entries: Sequence[Mapping[str, Any]]) -> str:
    """A table as it is written: one line a list or a cost."""
    lines = []
    for entry in entries:
        fields = []
        for key, value in entry.items():
            if isinstance(value, list) and value:
                inner = ",\n".join(f"      {json.dumps(one)}" for one in value)
                fields.append(f"    {json.dumps(key)}: [\n{inner}\n    ]")
            else:
                fields.append(f"    {json.dumps(key)}: {json.dumps(value)}")
        lines.append("  {\n" + ",\n".join(fields) + "\n  }")
    return "[\n" + ",\n".join(lines) + "\n]\n"
