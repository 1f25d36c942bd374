"""Finds out, without reading weights, whether a model or a ControlNet on this machine can be loaded.

For a worker's start. Reads descriptions and headers: classes, widths that must fit together, and each layer of
diffusers' own models. What transformers' models hold, and the tensors of a single file, are accounted for when
they are loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.controlnet_classes import class_of_controlnet
from contracts.errors import CatalogueError
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import component_weights
from contracts.hub.source import CHECKPOINT_SUFFIXES
from contracts.weights.configs import read_config
from contracts.weights.controls.controlnet_files import check_modes, refuse_other_kinds
from contracts.weights.controls.flux_control_lora_files import read_control_lora
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import read_header
from contracts.weights.quantized import read_folder_quantization, read_quantization
from contracts.weights.quantized_files import tensors_of
from contracts.weights.text_encoder_files import check_text_encoder
from worker.checkpoints.components import check_layers, find_class, is_model, read_index
from worker.checkpoints.controls.controlnets import check_config
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized import gguf_files, torchao_weights
from worker.checkpoints.quantized.torchao_weights import quantizations_of
from worker.checkpoints.sources import find_config, find_control_lora, find_text_encoders
from worker.checkpoints.text_encoders import refuse_two_encoders
from worker.families import DiffusersFamily

#: Components whose layers have the names of the file; older VAEs are renamed while they are loaded.
_RENAMED = (".query.", ".key.", ".value.", ".proj_attn.")
#: They would be taken for the weights themselves.
_INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})


def rehearse_model(catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path) -> None:
    """Check a model's folder or file as far as its descriptions and headers tell.

    Raises:
        CatalogueError: it cannot be loaded, and why.
        OSError: a file cannot be read.
    """
    folder = path
    if not path.is_dir():
        if path.suffix not in CHECKPOINT_SUFFIXES:
            raise CatalogueError("a checkpoint in one file must be a .safetensors or .gguf file")
        found = find_config(catalogue, spec, family, path)
        if found is None:
            return  # its configurations must be fetched first
        folder = found
    index = read_index(family, folder)
    file = None if path.is_dir() else SingleFile(path)
    if file is not None:
        torchao_weights.refuse_quantized(folder)
        gguf_files.require_package(file.tensors)
        refuse_two_encoders(spec, family, file)
    for name, kind in quantizations_of(spec, family).items():
        is_beside = name in spec.text_encoders or (file is not None and file.holds(name, family))
        stored = None if is_beside else read_quantization(read_config(folder / name), name)
        torchao_weights.check_quantization(name, kind, stored)
    for name, encoder in (find_text_encoders(catalogue, spec) or {}).items():
        check_text_encoder(name, encoder, read_config(folder / name))
    parts: dict[str, Any] = {}
    for name in [name for name in index if is_model(index[name])]:
        parts[name] = _describe(
            folder, name, index[name], spec.variant, is_elsewhere=file is not None and file.holds(name, family)
        )
    is_whole = {family.denoiser, family.vae} - {None} <= parts.keys()
    misfit = family.misfit(parts) if is_whole else None
    if misfit is not None:
        raise CatalogueError(f"its parts do not make a {family.id} model: {misfit}")
    _rehearse_control_lora(catalogue, spec, folder, parts.get(family.denoiser))


def _rehearse_control_lora(
    catalogue: Catalogue, spec: ModelSpec, folder: Path, denoiser: _Component | None
) -> None:
    lora = find_control_lora(catalogue, spec)
    if lora is None or denoiser is None:
        return
    if read_folder_quantization(folder) is not None:
        raise CatalogueError("control_lora is added to the model's own weights, which are quantized here")
    try:
        read_control_lora(lora, denoiser.shapes)
    except CatalogueError as error:
        raise CatalogueError(f"control_lora: {error}") from None


def rehearse_controlnet(family: DiffusersFamily, path: Path, modes: int = 0) -> None:
    """The same for a ControlNet's folder or file; `modes`: kinds of control that its row names."""
    if path.is_dir():
        config = read_config(path)
        check_config(family, config, modes)
        _describe(path, "", class_of_controlnet(config), None, is_elsewhere=False)
    elif path.suffix == ".safetensors" and not read_config(path.parent):
        refuse_other_kinds(_shapes(path), family.controlnet)
        check_modes({}, modes)


def _describe(folder: Path, name: str, class_name: str, variant: str | None, *, is_elsewhere: bool) -> Any:
    """The component without weights: something with its `config`. Accounts for its layers by the headers."""
    diffusers_class: Any = getattr(diffusers, class_name, None)
    if diffusers_class is None:
        return SimpleNamespace(config=find_class(class_name).config_class.from_pretrained(folder / name))
    text = json.dumps(diffusers_class.load_config(folder / name), sort_keys=True)
    component = _build(class_name, text)
    if not is_elsewhere:
        _account(name, folder, variant, component.shapes)
    return component


@dataclass(frozen=True)
class _Component:
    """A component of one class and configuration: its complete configuration, and its layers."""

    config: Any
    shapes: Mapping[str, tuple[int, ...]]


@lru_cache(maxsize=64)
def _build(class_name: str, config: str) -> _Component:
    """Build a component without weights. Kept: fine-tuned models of one kind have the same configurations."""
    with torch.device("meta"):
        model = getattr(diffusers, class_name).from_config(json.loads(config))
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    return _Component(model.config, MappingProxyType(shapes))


def _account(name: str, folder: Path, variant: str | None, own: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a component's layers with the headers of its weights."""
    files = RepositoryFiles.in_folder(folder)
    names = (variant and component_weights(files, name, variant)) or component_weights(files, name, None)
    weights = [file for file in names if file.endswith(".safetensors")]
    if not weights:
        return  # loading says which files it looked for
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weights:
        shapes |= _shapes(folder / file)
    if any(mark in key for key in shapes for mark in _RENAMED):
        return
    check_layers(name or "the ControlNet", own, {**shapes, **_packed_alike(shapes, own)})


def _packed_alike(
    shapes: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights in a row of which a header says only how many values they are, two in a byte."""
    rows = {key: shape[0] for key, shape in shapes.items() if len(shape) == 1 and len(own.get(key, ())) > 1}
    return {key: own[key] for key, values in rows.items() if values - math.prod(own[key]) in (0, 1)}


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        tensors = tensors_of(read_header(file))
    except NotSafetensors as error:
        raise CatalogueError(f"{file.name} {error}") from None
    for key, tensor in tensors.items():
        if key.endswith(".weight") and tensor.dtype in _INTEGERS:
            raise CatalogueError(f"{key[:120]} in {file.name} is in {tensor.dtype}, whose scales are missing")
    return {key: tensor.shape for key, tensor in tensors.items()}
