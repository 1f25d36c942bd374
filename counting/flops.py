"""Counts the floating-point operations of components, for `contracts/weights/counts/flops.json`.

On torch's meta device. Those of a call are a polynomial of its positions and tokens, found from a few runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from contracts.memory.activation_tables import class_of
from contracts.weights import counts
from contracts.weights.counts.flops import CallFlops, sizes_of
from counting.component_calls import Inputs, build, run_of
from counting.live_tensors import shapes_of

TABLE = Path(counts.__file__).parent / "flops.json"
#: Factors are whole numbers, small ones of these parts: a term of a VAE's pixels may be that small.
_LARGE, _PARTS = 1e6, 64
#: Attends to few positions in another way, which no image has that is worth making.
_CHOOSES_BY_SIZE = "AutoencoderDC"
#: A call's arguments, and the call.
Run = tuple[Mapping[str, Any], Callable[[], object]]


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The counter of `FlopCounterMode`, without its account of modules, which takes most of its time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.flops += 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
        return result


def count_flops(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table: components by their parameters, and the operations of their calls."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for config in configs:
        module, class_name = build(config), class_of(config)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        if (class_name, parameters) not in rows:
            calls = {entry: nonzero(_fit(runs)) for entry, runs in _runs(module, config).items()}
            rows[class_name, parameters] = {"class": class_name, "parameters": parameters, "calls": calls}
    return list(rows.values())


def _runs(module: Any, config: Mapping[str, Any]) -> dict[str, list[Run]]:
    """Entry -> its calls."""
    runs: dict[str, list[Run]] = {}
    larger = 2 if class_of(config) == _CHOOSES_BY_SIZE else 1
    for listed in shapes_of(class_of(config), listed=True):
        shape = replace(listed, width=listed.width * larger, height=listed.height * larger)
        call = Inputs(config, shape)
        given = call.of(class_of(config))
        if "sample" in given:  # a UNet: it reads as many windows of CLIP as a prompt has
            states = given["encoder_hidden_states"]
            given["encoder_hidden_states"] = states.new_empty(len(states), shape.text_tokens, states.shape[2])
        decodes = hasattr(module, "decode")
        compute = module.decode if decodes else module
        runs.setdefault("decode" if decodes else "__call__", []).append((given, partial(compute, **given)))
        if decodes:
            encoding: Run = ({"x": call.image()}, run_of(module, call, encode=True))
            runs.setdefault("encode", []).append(encoding)
    return runs


def _fit(runs: Sequence[Run]) -> CallFlops:
    """The polynomial through what these runs compute; a size that they all share is part of its constant."""
    counted: dict[tuple[int, int], float] = {}
    for given, run in runs:
        each = list(sizes_of(given))
        size = each[0][1:]
        if size not in counted:
            with torch.no_grad(), _Counting() as counting:
                run()
            counted[size] = counting.flops / sum(rows for rows, _, _ in each)
    varies = [len(set(values)) > 1 for values in zip(*counted, strict=True)]
    powers = {
        name: both
        for name, both in CallFlops.POWERS.items()
        if all(known or not power for known, power in zip(varies, both, strict=True))
    }
    terms = np.array([[float(x**a * y**b) for a, b in powers.values()] for x, y in counted])
    scale = terms.max(axis=0)
    solved, *_ = np.linalg.lstsq(terms / scale, np.array([*counted.values()]), rcond=None)
    exact = solved / scale
    values = np.where(exact > _LARGE, exact.round(), np.round(exact * _PARTS) / _PARTS)
    return CallFlops(**dict(zip(powers, values.tolist(), strict=True)))


def nonzero(cost: Any) -> dict[str, float]:
    """The fields of a cost, a dataclass, that are not 0."""
    return {name: value for name, value in asdict(cost).items() if value}


def render_flops(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as it is written: a line a component."""
    ordered = sorted(rows, key=lambda row: (row["class"], row["parameters"]))
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in ordered) + "\n]\n"
