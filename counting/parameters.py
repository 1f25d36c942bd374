"""Counts the values of components, for the files of `contracts/weights/counts/architectures/`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from contracts.weights.counts.parameter_counts import LinearWeights, ParameterCount
from counting.component_calls import build

#: What an architecture's file has beside its components.
_NETS = ("controlnet", "t2i_adapter", "union")


def count_parameters(name: str, module: Any) -> ParameterCount:
    """Those of a component of this name; of a denoiser or text encoder with what can be quantized of it."""
    seen = {id(tensor): (key, tensor) for key, tensor in reversed(module.state_dict(keep_vars=True).items())}
    stored = dict(reversed(seen.values()))  # a shared tensor once, under its first name
    counts = [(key, tensor.numel()) for key, tensor in stored.items()]
    if name not in ("transformer", "unet") and not name.startswith("text_encoder"):
        return ParameterCount.of(counts)
    return ParameterCount.of(
        counts, linear=LinearWeights.of({key: tensor.shape for key, tensor in stored.items()})
    )


def with_counts(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture's file says, with the counts of all its configurations."""
    components = {name: _counted(name, part) for name, part in architecture["components"].items()}
    nets = {name: _counted(name, architecture[name]) for name in _NETS if name in architecture}
    return {**architecture, "components": components, **nets}


def _counted(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    count = count_parameters(name, build(part["config"]))
    sums = {field.name: list(getattr(count.linear, field.name)) for field in fields(LinearWeights)}
    return {
        **{key: value for key, value in part.items() if key not in ("count", "linear", "config")},
        "count": {f"{key}values": getattr(count, f"{key}values") for key in ("", "block_", "loose_", "leaf_")},
        **({"linear": sums} if count.linear.values.total else {}),
        "config": part["config"],
    }


def render_architecture(architecture: Mapping[str, Any]) -> str:
    """A file as it is written: the sums of linear layers in one line."""
    text = json.dumps(architecture, indent=2, ensure_ascii=False)
    return re.sub(r'(?<="linear": )\{[^}]*\}', lambda sums: json.dumps(json.loads(sums[0])), text) + "\n"
