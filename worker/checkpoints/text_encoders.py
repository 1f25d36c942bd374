"""Loads text encoders from files of their own, where a model's row names them. Knows no catalogue.

A file does not say its architecture: it is that of the checkpoint's own configuration, and each tensor must be one
of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.text_encoder_files import check_text_encoder, own_names
from worker.checkpoints.components import check_loaded, find_class
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized.scaled import unscaled
from worker.checkpoints.quantized.torchao_weights import quantize
from worker.checkpoints.sliced import converted
from worker.checkpoints.tracking import Tensors
from worker.families import DiffusersFamily
from worker.runtime import slices

_TABLE, _SAME_TABLE = "shared.weight", "encoder.embed_tokens.weight"
#: Of a CLIP whose class has no projection: these families take its vector as it is.
_PROJECTION = "text_projection.weight"


def load_text_encoders(
    files: Mapping[str, Path],
    index: Mapping[str, str],
    folder: Path,
    dtype: torch.dtype,
    quantizations: Mapping[str, str | None],
) -> dict[str, Any]:
    """The text encoders in these files, by component, in host memory.

    Args:
        index: component -> class.
        folder: of the checkpoint, with the configuration of each.
        quantizations: component -> how to quantize it.

    Raises:
        CatalogueError: a file holds another encoder, lacks weights, or holds some that no layer takes.
    """
    found = {}
    for name, file in files.items():
        found[name] = _load(name, file, index[name], folder / name, dtype)
        quantize(found[name], quantizations.get(name))
        slices.end()
    return found


def refuse_two_encoders(spec: ModelSpec, family: DiffusersFamily, file: SingleFile) -> None:
    """Refuse a checkpoint in one file that has a text encoder which its row names another file for.

    Raises:
        CatalogueError: it has.
    """
    for name in spec.text_encoders:
        if file.holds(name, family):
            raise CatalogueError(f"text_encoders: {file.path.name} has a {name} of its own: leave that out")


def _load(name: str, file: Path, class_name: str, folder: Path, dtype: torch.dtype) -> Any:
    check_text_encoder(name, file, read_config(folder))
    encoder_class = find_class(class_name)
    stored = unscaled(load_file(file), dtype)
    tensors: Tensors = {own: stored[key] for key, own in own_names(stored).items()}
    if _TABLE in tensors and _SAME_TABLE in tensors:
        if not torch.equal(tensors[_TABLE], tensors[_SAME_TABLE]):
            raise CatalogueError(f"text_encoders: {name}: {_TABLE} and {_SAME_TABLE} of {file.name} differ")
        del tensors[_SAME_TABLE]
    if not class_name.endswith("WithProjection"):
        tensors.pop(_PROJECTION, None)
    config = encoder_class.config_class.from_pretrained(folder)
    tensors = converted(tensors, dtype)
    model, found = encoder_class.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    try:
        check_loaded(name, found)
    except CatalogueError as error:
        raise CatalogueError(f"text_encoders: {file.name}: {error}") from None
    return model
