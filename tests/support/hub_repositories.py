"""Files of repositories for the stand-in hub, laid out as on the real one: name → content, or the file with it.

Whole checkpoints, which load and generate, come from `models/`; `sketch` has the names and no weights worth
loading, for tests of what is fetched. Nothing here imports torch. As a program it serves the built-in checkpoints:
`python -m tests.support.hub_repositories --help`.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import cast

import numpy as np
from safetensors.numpy import load, save

from tests.support.hub import Hub
from tests.support.hub_http import Fault

MODELS = Path(__file__).parents[2] / "models"
Files = dict[str, bytes | Path]
_METADATA = {"format": "pt"}


def folder(path: Path) -> Files:
    """Every file of a folder."""
    return {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}


def checkpoint(model: str = "shapes-sdxl") -> Files:
    """A built-in checkpoint in diffusers' layout: about 9 MB in four components, in float16."""
    return folder(MODELS / model)


def controlnet(name: str = "shapes-sdxl-silhouette") -> Files:
    """A built-in ControlNet: `config.json` and 3 MB of weights."""
    return folder(MODELS / "controlnets" / name)


def loras(*effects: str, family: str = "sdxl") -> Files:
    """A repository of built-in LoRAs, by effect: `tint` (91 KB), `stripes`, `outline`, `crescent`."""
    names = [f"shapes-{family}-{effect}.safetensors" for effect in effects]
    return {name: MODELS / "loras" / name for name in names}


def with_variant(files: Files, parts: Collection[str] = (), variant: str = "fp16") -> Files:
    """The same with a half-precision variant beside the weights, which become float32.

    Args:
        parts: components that have the variant; empty: all.
    """
    changed = dict(files)
    for name in _weights(files):
        if not parts or name.partition("/")[0] in parts:
            tensors = load(_content(files[name]))
            full = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
            half = {key: tensor.astype(np.float16) for key, tensor in tensors.items()}
            changed[name] = save(full, _METADATA)
            changed[name.replace(".safetensors", f".{variant}.safetensors")] = save(half, _METADATA)
    return changed


def in_shards(files: Files, part: str, variant: str | None = None) -> Files:
    """The same with the weights of a component in two shards and their index."""
    middle = f".{variant}" if variant else ""
    whole = next(name for name in _weights(files) if name.startswith(f"{part}/") and _variant_of(name) == variant)
    stem = whole.removesuffix(f"{middle}.safetensors")
    tensors = load(_content(files[whole]))
    shards = [f"{stem}{middle}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    changed = {name: content for name, content in files.items() if name != whole}
    places: dict[str, str] = {}
    for number, shard in enumerate(shards):
        keys = sorted(tensors)[number::2]
        changed[shard] = save({key: tensors[key] for key in keys}, _METADATA)
        places |= dict.fromkeys(keys, shard.rpartition("/")[2])
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    changed[f"{stem}.safetensors.index{middle}.json"] = json.dumps(index).encode()
    return changed


def with_clutter(files: Files) -> Files:
    """The same with what no worker needs: weights in other formats, the whole as one file, a picture."""
    copies: Files = {name.replace(".safetensors", ".bin"): b"pickle" * 1000 for name in _weights(files)}
    others = ("unet/model.onnx", "unet/diffusion_flax_model.msgpack", "whole.safetensors", "picture.png")
    return {**files, **copies, **dict.fromkeys(others, bytes(100_000))}


def with_class(files: Files, class_name: str) -> Files:
    """The same checkpoint whose `model_index.json` names another pipeline."""
    index = json.loads(_content(files["model_index.json"])) | {"_class_name": class_name}
    return {**files, "model_index.json": json.dumps(index).encode()}


def with_other_weights(files: Files, part: str = "unet") -> Files:
    """The same with weaker weights of a component, so that images differ."""
    changed = dict(files)
    for name in _weights(files):
        if name.startswith(f"{part}/"):
            tensors = load(_content(files[name]))
            changed[name] = save(
                {key: tensor * tensor.dtype.type(0.9) for key, tensor in tensors.items()}, _METADATA
            )
    return changed


def sketch(files: Files, weight_bytes: int = 1000) -> Files:
    """The same names and configurations, each file of weights being so many bytes that differ by name."""
    return {
        name: _filler(name, weight_bytes)
        if name.endswith((".safetensors", ".bin", ".msgpack", ".onnx"))
        else content
        for name, content in files.items()
    }


def commit_shapes(hub: Hub) -> None:
    """Commit what is built in: `shapes/sdxl`, `sd3`, `flux`, `controlnet`, `lora` (one file), `loras` (three)."""
    for family in ("sdxl", "sd3", "flux"):
        hub.commit(f"shapes/{family}", checkpoint(f"shapes-{family}"))
    hub.commit("shapes/controlnet", controlnet())
    hub.commit("shapes/lora", loras("tint"))
    hub.commit("shapes/loras", loras("tint", "stripes", "outline"))


def _filler(name: str, size: int) -> bytes:
    return (name.encode() * (size // len(name) + 1))[:size]


def _content(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _weights(files: Iterable[str]) -> list[str]:
    return [name for name in files if name.endswith(".safetensors") and "/" in name]


def _variant_of(name: str) -> str | None:
    pieces = name.rpartition("/")[2].removesuffix(".safetensors").split(".")
    return pieces[1] if len(pieces) > 1 else None


def main() -> None:
    """Serve the built-in checkpoints as `shapes/sdxl` and so on until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.hub_repositories", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes-per-second", type=float, default=None, help="of each file")
    parser.add_argument("--gate", action="append", default=[], metavar="REPOSITORY=TOKEN")
    options = parser.parse_args()
    hub = Hub(cast(int, options.port))
    hub.gates = dict(gate.split("=", 1) for gate in options.gate)
    hub.faults = [Fault(path="/resolve/", bytes_per_second=options.bytes_per_second)]
    commit_shapes(hub)
    print(f"HF_ENDPOINT={hub.start()}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
