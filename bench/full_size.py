"""Checkpoints and LoRAs with random weights for published architectures, as large and as slow as the real ones.

Written in diffusers' layout. Tokenizers and schedulers are those of the family's shapes model. Knows nothing of
plans or jobs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import Architecture
from counting.component_calls import build
from worker.families import get_family

#: Standard deviation of the weights: small enough for activations to stay finite in half precision.
_DEVIATION = 0.02
_LORA_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")


def write_checkpoint(architecture: Architecture, folder: Path, device: str, dtype: torch.dtype) -> None:
    """Write the folder; components that are complete already are kept, so that an interrupted call is resumed.

    Args:
        device: where the random numbers are drawn; a GPU draws 10⁹ a second.
    """
    shapes = BUILT_IN_CATALOGUE.parent / f"shapes-{architecture.family}"
    for name, config in architecture.configs.items():
        if not (folder / name / "done").exists():
            component = _draw(config, device, dtype)
            component.save_pretrained(folder / name, max_shard_size="5GB")
            (folder / name / "done").touch()
            del component
    for part in shapes.iterdir():
        if part.is_dir() and part.name not in architecture.configs:
            shutil.copytree(part, folder / part.name, dirs_exist_ok=True)
    shutil.copy(shapes / "model_index.json", folder)


def write_catalogue(architectures: Mapping[str, Architecture], folder: Path) -> Path:
    """Write a catalogue of the checkpoints in the folder, each in a subfolder named by its id."""
    rows = [f'default_model = "{next(iter(architectures))}"']
    for id, architecture in architectures.items():
        rows.append(f'[[models]]\nid = "{id}"\nfamily = "{architecture.family}"\nsource = "{id}"')
    path = folder / "catalogue.toml"
    path.write_text("\n\n".join(rows) + "\n", encoding="utf-8")
    return path


def add_lora(catalogue: Catalogue, spec: ModelSpec, folder: Path, rank: int = 16) -> Catalogue:
    """The catalogue with `bench`, a random LoRA for the model's denoiser in PEFT's layout, in the folder."""
    part = get_family(spec.family_spec.id).denoiser
    config = json.loads((Path(str(catalogue.place(spec))) / part / "config.json").read_text(encoding="utf-8"))
    generator, tensors, file = torch.Generator().manual_seed(0), {}, folder / "bench.safetensors"
    for key, layer in build(config).named_modules():
        if isinstance(layer, torch.nn.Linear) and key.endswith(_LORA_LAYERS):
            for name, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                tensors[f"{part}.{key}.lora_{name}.weight"] = torch.randn(shape, generator=generator) * 0.01
    save_file(tensors, file)
    return catalogue.model_copy(update={"loras": (LoraSpec(id="bench", family=spec.family, source=str(file)),)})


@torch.no_grad()
def _draw(config: Mapping[str, Any], device: str, dtype: torch.dtype) -> Any:
    """A component with random weights; norms keep weights of one, so that activations stay in range."""
    component = build(config, dtype).to_empty(device=device)
    for name, values in (*component.named_parameters(), *component.named_buffers()):
        if not values.is_floating_point():
            continue
        if values.dim() == 1:
            values.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            values.normal_(0.0, _DEVIATION)
    return component
