"""Writes what is known of component classes: `python -m bench.architectures --write`.

Of every component of `contracts/weights/counts/architectures/`, the numbers of its values, into these files. Of
these and of the shipped models, activations for the planner, in `contracts/memory/activation_tables/`, and
floating-point operations for estimates of energy, in `contracts/weights/counts/flops.json`. `counting/` counts
them; tests compare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import options
from contracts.memory import activation_tables
from contracts.memory.activation_tables import class_of
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.configs import read_config
from contracts.weights.counts import architectures
from contracts.weights.counts.architectures import Architecture, read_architectures
from contracts.weights.counts.parameter_counts import ParameterCount
from counting.activations import count_activations, render, shaping
from counting.flops import TABLE, count_flops, render_flops
from counting.parameters import render_architecture, with_counts

TABLES = Path(activation_tables.__file__).parent
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


def main() -> None:
    """Write the tables."""
    parser = options(__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write the tables of activations")
    parser.add_argument("--only", nargs="+", default=[], metavar="CLASS", help="classes to count (all)")
    only = parser.parse_args().only
    _write_counts(only)
    by_class: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {}
    for name, config in components():
        if not only or class_of(config) in only:
            by_class.setdefault(class_of(config), {}).setdefault(json.dumps(shaping(config)), (name, config))
    for class_name, configs in sorted(by_class.items()):
        print(f"{class_name}: {', '.join(name for name, _ in configs.values())}", file=sys.stderr)
        entries = [count_activations(config) for _, config in configs.values()]
        (TABLES / f"{class_name}.json").write_text(render(entries), encoding="utf-8")
    _write_flops([config for _, config in components()], only)


def _write_counts(only: Sequence[str]) -> None:
    for file in sorted(Path(architectures.__file__).parent.glob("*.json")):
        architecture = json.loads(file.read_text(encoding="utf-8"))
        if not only or any(class_of(part["config"]) in only for part in architecture["components"].values()):
            file.write_text(render_architecture(with_counts(architecture)), encoding="utf-8")


def _write_flops(configs: Sequence[Mapping[str, Any]], only: Sequence[str]) -> None:
    chosen = [config for config in configs if not only or class_of(config) in only]
    kept = [row for row in json.loads(TABLE.read_text(encoding="utf-8")) if only and row["class"] not in only]
    TABLE.write_text(render_flops([*kept, *count_flops(chosen)]), encoding="utf-8")


if __name__ == "__main__":
    main()
