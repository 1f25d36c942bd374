"""Writes what is known of component classes: `python -m bench.architectures --write`.

Builds every component of `contracts/weights/counts/architectures/` and of the shipped models on torch's meta
device, counts its activations for the planner, and writes them to `contracts/memory/activation_tables/`; counts
its floating-point operations for estimates of energy, in `contracts/weights/counts/flops.json`. Tests compare the
tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.component_calls import ONE_BY_ONE, Inputs, build, run_of
from bench.flops import TABLE, count_flops, nonzero, render_flops
from bench.live import LISTED_SHAPES, SHAPES, Follower, find_peaks
from bench.report import options
from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.memory import activation_tables
from contracts.memory.activation_tables import class_of
from contracts.memory.activations import ActivationCost
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import Architecture, read_architectures
from contracts.weights.counts.parameter_counts import ParameterCount, read_config
from worker.adapters.low_rank import LowRank
from worker.adapters.row_hooks import LoraHook

TABLES = Path(activation_tables.__file__).parent
#: Entries that shape activations; configurations that agree in them share an entry of the table.
_SHAPING = (
    "block_out_channels", "encoder_block_out_channels", "decoder_block_out_channels",
    "down_block_types", "layers_per_block", "transformer_layers_per_block",
    "cross_attention_dim", "resnet_time_scale_shift", "conditioning_embedding_out_channels", "latent_channels",
    "num_attention_heads", "attention_head_dim", "num_layers", "num_single_layers", "patch_size", "in_channels",
    "caption_channels", "approximator_num_channels", "approximator_hidden_dim", "approximator_layers",
    "joint_attention_dim", "pos_embed_max_size", "dual_attention_layers",
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


#: TAESD for Stable Diffusion 1 and SDXL, and the same of SD3 and FLUX.1, which rows of VAEs name.
_TINY_VAES = {
    f"TAESD of {channels} channels": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [64, 64, 64, 64],
        "decoder_block_out_channels": [64, 64, 64, 64],
        "latent_channels": channels,
    }
    for channels in (4, 16)
}


def components() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and configuration of every component that is published or shipped."""
    for architecture in read_architectures():
        yield from ((f"{architecture.id} {name}", config) for name, (_, config) in parts(architecture).items())
    yield from _TINY_VAES.items()
    models = BUILT_IN_CATALOGUE.parent
    for kind in ("shapes-*/*", "controlnets/*"):
        for file in sorted(models.glob(f"{kind}/config.json")):
            yield str(file.parent.relative_to(models)), read_config(file.parent)


def parts(architecture: Architecture) -> dict[str, tuple[ParameterCount, Mapping[str, Any]]]:
    """Name -> count and configuration: of its components, and of the ControlNet and T2I-Adapter used with it."""
    found = {name: (count, architecture.configs[name]) for name, count in architecture.counts.items()}
    nets = {name: getattr(architecture, name) for name in ("controlnet", "t2i_adapter", "union")}
    return found | {name: (net.count, net.config) for name, net in nets.items() if net is not None}


def count_activations(config: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a class's table: everything counted for this configuration."""
    class_name = class_of(config)
    if _is_transformer(config):
        config = {**config, **{key: min(config[key], _DEPTH) for key in _DEPTHS if key in config}}
    module = build(config)
    shapes = LISTED_SHAPES if class_name in ONE_BY_ONE else SHAPES
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
    shaping = {key: value for key, value in _shaping(config).items() if value is not None}
    entry: dict[str, Any] = {"config": shaping}
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
        entry["prompt"] = nonzero(_size_of(("encoder_hidden_states", "cap_feats"), calls, class_name))
    return entry


def _shaping(config: Mapping[str, Any]) -> dict[str, Any]:
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


def main() -> None:
    """Write the tables."""
    parser = options(__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write the tables of activations")
    parser.add_argument("--only", nargs="+", default=[], metavar="CLASS", help="classes to count (all)")
    only = parser.parse_args().only
    by_class: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {}
    for name, config in components():
        if not only or class_of(config) in only:
            by_class.setdefault(class_of(config), {}).setdefault(json.dumps(_shaping(config)), (name, config))
    for class_name, configs in sorted(by_class.items()):
        print(f"{class_name}: {', '.join(name for name, _ in configs.values())}", file=sys.stderr)
        entries = [count_activations(config) for _, config in configs.values()]
        (TABLES / f"{class_name}.json").write_text(render(entries), encoding="utf-8")
    _write_flops([config for _, config in components()], only)


def _write_flops(configs: Sequence[Mapping[str, Any]], only: Sequence[str]) -> None:
    chosen = [config for config in configs if not only or class_of(config) in only]
    kept = [row for row in json.loads(TABLE.read_text(encoding="utf-8")) if only and row["class"] not in only]
    TABLE.write_text(render_flops([*kept, *count_flops(chosen)]), encoding="utf-8")


if __name__ == "__main__":
    main()
