"""`python -m worker.convert SOURCE TARGET`: a hypernetwork of A1111's web UI, a pickle, as safetensors.

`darkroom convert` runs it in a process of its own. The pickle is read by torch's restricted unpickler, which makes
tensors and plain values and runs no code of the file.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import AdapterRefused
from contracts.weights.adapters.hypernetwork_files import KIND, read_hypernetwork
from contracts.weights.formats.safetensors import read_header

if TYPE_CHECKING:
    import torch

#: Names of layers before the web UI knew structures.
_OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}


def convert(source: Path, target: Path) -> None:
    """Write a hypernetwork's tensors and settings as safetensors.

    Raises:
        AdapterRefused: the file is not a hypernetwork, or would have to run code.
        OSError: it cannot be read.
    """
    source.open("rb").close()
    # Imported here: torch takes seconds, and that a file is not there is told before that.
    import torch
    from safetensors.torch import save_file

    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise AdapterRefused(f"{source.name} holds more than tensors and settings; its code is not run") from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise AdapterRefused(f"{source.name} is not a file of torch.save: {type(error).__name__}") from None
    pairs = {key: value for key, value in stored.items() if type(key) is int} if isinstance(stored, dict) else {}
    if not pairs:
        raise AdapterRefused(f"{source.name} is not a hypernetwork: it has no pairs of networks by their widths")
    tensors: dict[str, torch.Tensor] = {}
    for width, pair in pairs.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise AdapterRefused(f"{source.name} has no pair of networks for width {width}")
        for half, network in zip("kv", pair, strict=True):
            tensors |= _tensors(f"{KIND}.{width}.{half}", network)
    settings = {
        # The web UI's own defaults for what a file does not say.
        "activation": stored.get("activation_func") or "linear",
        "activate_output": bool(stored.get("activate_output", True)),
    }
    part = target.with_name(f".{target.name}.part")
    try:
        save_file(tensors, part, {KIND: json.dumps(settings)})
        header = read_header(part)
        read_hypernetwork(header.tensors, header.metadata)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _tensors(name: str, network: object) -> dict[str, torch.Tensor]:
    """One network's tensors, its linear layers numbered one by one: a norm belongs to the layer before it."""
    import torch

    if not isinstance(network, Mapping):
        raise AdapterRefused(f"{name} is not a network")
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in network.items():
        layer, _, part = str(key).rpartition(".")
        index = _OLD_NAMES.get(layer, layer).removeprefix("linear.")
        if not index.isdecimal() or part not in ("weight", "bias") or not isinstance(tensor, torch.Tensor):
            raise AdapterRefused(f"{name} has {str(key)[:80]!r}, which is not a layer of a hypernetwork")
        layers.setdefault(int(index), {})[part] = tensor.detach().contiguous().clone()
    tensors: dict[str, torch.Tensor] = {}
    number = -1
    for _, own in sorted(layers.items()):
        is_norm = "weight" in own and own["weight"].dim() == 1
        number += not is_norm
        prefix = f"{name}.{number}.{'norm.' if is_norm else ''}"
        tensors |= {prefix + part: tensor for part, tensor in own.items()}
    return tensors


def main(words: list[str]) -> None:
    """Convert; a refusal is one line on the standard error, and a status that is not zero."""
    source, target = map(Path, words)
    try:
        convert(source, target)
    except (AdapterRefused, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
