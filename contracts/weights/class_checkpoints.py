"""Checkpoints that are prompted by a class: the labels of their classes and the size of their images.

Read from configurations; loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.class_labels import read_labels
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config


def class_limits(row: ModelSpec, folder: Path) -> dict[str, object]:
    """Return fields of the row of a checkpoint in this folder.

    Raises:
        CatalogueError: as `check_class_row` says.
    """
    labels = read_labels(read_config(folder, "model_index.json").get("id2label"))
    side = side_of(read_config(folder / "transformer"), read_config(folder / "vae"))
    own = {} if side is None else {"width": side, "height": side}
    for name, value in own.items():
        if row.defaults.get(name, value) != value:
            raise CatalogueError(
                f"the checkpoint makes images of {side} × {side} only, and the row's default of {name} is "
                f"{row.defaults[name]}: leave it out"
            )
    return {"class_labels": labels, "defaults": {**row.defaults, **own}}


def side_of(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> int | None:
    """Return the side in pixels of a checkpoint's images; None where its configurations do not say it."""
    positions, resolutions = transformer.get("sample_size"), vae.get("block_out_channels")
    if not isinstance(positions, int) or not isinstance(resolutions, list | tuple):
        return None
    return positions * int(2 ** (len(resolutions) - 1))
