"""Small random textual inversions for the models of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, TextualInversionSpec
from contracts.weights.configs import read_config

Tensors = dict[str, torch.Tensor]


def inversion_tensors(checkpoint: Path, encoders: Mapping[str, str], vectors: int = 1, seed: int = 0) -> Tensors:
    """Vectors for the text encoders of a checkpoint, under the names that files have for them."""
    generator = torch.Generator().manual_seed(seed)
    widths = {part: read_config(checkpoint / encoder)["hidden_size"] for encoder, part in encoders.items()}
    return {part: torch.randn(vectors, width, generator=generator) * 0.3 for part, width in widths.items()}


def with_inversions_of(catalogue: Catalogue, folder: Path, counts: Mapping[str, int]) -> Catalogue:
    """The catalogue with textual inversions `FAMILY-NAME` for each family that takes any.

    Args:
        counts: name -> vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in {row.family: row for row in reversed(catalogue.models)}.values():
        encoders = model.family_spec.inversion_encoders
        for seed, (name, vectors) in enumerate(counts.items() if encoders else ()):
            path = folder / f"{model.family}-{name}.safetensors"
            save_file(inversion_tensors(catalogue.root / model.source, encoders, vectors, seed), path)
            rows.append(TextualInversionSpec(id=f"{model.family}-{name}", family=model.family, source=str(path)))
    return catalogue.model_copy(update={"textual_inversions": tuple(rows)})
