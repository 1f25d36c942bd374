"""Hypernetworks with random weights, as A1111's web UI stores them and as they are read here."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

#: Width of what a network changes, and half (`k`, `v`) -> its layers in order.
Networks = dict[tuple[int, str], torch.nn.Sequential]


def make_networks(
    widths: Collection[int], *, norms: bool = False, activate_output: bool = False, seed: int = 2
) -> Networks:
    """Networks of two layers, the first twice as wide, with ReLU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks: Networks = {}
        for width in widths:
            for half in "kv":
                first = [torch.nn.Linear(width, 2 * width), torch.nn.ReLU()]
                last = [torch.nn.Linear(2 * width, width), *[torch.nn.ReLU()] * activate_output]
                between = [torch.nn.LayerNorm(2 * width)] * norms
                after = [torch.nn.LayerNorm(width)] * norms
                networks[width, half] = torch.nn.Sequential(*first, *between, *last, *after)
    for network in networks.values():
        for parameter in network.parameters():
            parameter.requires_grad_(False)
            if parameter.dim() == 2:
                parameter.normal_(std=0.15, generator=torch.Generator().manual_seed(seed))
    return networks


def write_pickle(path: Path, networks: Networks, **settings: Any) -> Path:
    """The web UI's own file."""
    pairs: dict[Any, Any] = {}
    for width, _ in networks:
        states = [networks[width, half].state_dict() for half in "kv"]
        pairs[width] = tuple({f"linear.{name}": value for name, value in state.items()} for state in states)
    stored = {
        **pairs,
        "step": 100,
        "name": "small",
        "layer_structure": [1, 2, 1],
        **settings,
    }
    torch.save(stored, path)
    return path


def write_hypernetwork(path: Path, networks: Networks, *, activate_output: bool = False) -> Path:
    """The same as safetensors."""
    tensors: dict[str, torch.Tensor] = {}
    for (width, half), network in networks.items():
        number = -1
        for layer in network:
            if isinstance(layer, torch.nn.ReLU):
                continue
            is_norm = isinstance(layer, torch.nn.LayerNorm)
            number += not is_norm
            prefix = f"hypernetwork.{width}.{half}.{number}.{'norm.' if is_norm else ''}"
            tensors |= {prefix + name: value.clone() for name, value in layer.state_dict().items()}
    settings = {"activation": "relu", "activate_output": activate_output}
    save_file(tensors, path, {"hypernetwork": json.dumps(settings)})
    return path
