"""Reads weights from a folder in diffusers layout, or from one `.safetensors` or `.gguf` file; never a pickle.

Knows nothing of devices, or of which models stay in memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.selection import UNUSED_COMPONENTS
from contracts.hub.source import CHECKPOINT_SUFFIXES
from contracts.weights.checkpoint_files import quantization_of
from contracts.weights.quantized import read_encoder_quantizations, read_folder_quantization
from worker.checkpoints.components import load_components, read_index
from worker.checkpoints.controls.flux_control_loras import merge_control_lora
from worker.checkpoints.one_file.original_layout import load_file_components, with_settings_of_file
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized.torchao_weights import quantizations_of
from worker.checkpoints.sources import find_config, find_control_lora, find_text_encoders
from worker.checkpoints.text_encoders import load_text_encoders, refuse_two_encoders
from worker.checkpoints.vaes import fix_vae_dtype
from worker.families import DiffusersFamily, get_family


def load_model(
    catalogue: Catalogue,
    spec: ModelSpec,
    family: DiffusersFamily,
    path: Path,
    dtype: torch.dtype,
    skipped: Collection[str] = (),
) -> Any:
    """The text-to-image pipeline with its components, but for those that are to be skipped, in host memory.

    Args:
        family: of its checkpoint, before a Control LoRA is merged into that.

    Raises:
        CatalogueError: the checkpoint is of another kind, lacks weights, or holds some that nothing takes.
        Exception: whatever the libraries raise for damaged files.
    """
    pipeline = _load_checkpoint(catalogue, spec, family, path, dtype, skipped)
    _check_parts(family, pipeline)
    if spec.control_lora is not None:
        family = get_family(spec.family_spec.id)
        pipeline = _with_control_lora(catalogue, spec, family, pipeline)
        _check_parts(family, pipeline)
    if family.vae is not None:
        fix_vae_dtype(pipeline.components[family.vae], dtype)
    family.prepare(pipeline)
    return pipeline


def _check_parts(family: DiffusersFamily, pipeline: Any) -> None:
    misfit = family.misfit(pipeline.components)
    if misfit is not None:
        raise CatalogueError(f"its parts do not make a {family.id} model: {misfit}")


def _with_control_lora(catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, pipeline: Any) -> Any:
    """The pipeline of a Control model on the same components, of which the denoiser is changed."""
    file = find_control_lora(catalogue, spec)
    if file is None or spec.control_lora is None:
        return pipeline
    try:
        merge_control_lora(pipeline.components[family.denoiser], file, spec.control_lora.scale)
    except CatalogueError as error:
        raise CatalogueError(f"control_lora: {error}") from None
    pipeline_class: Any = getattr(diffusers, family.checkpoint_class)
    names = inspect.signature(pipeline_class.__init__).parameters
    return pipeline_class(**{name: part for name, part in pipeline.components.items() if name in names})


def _load_checkpoint(
    catalogue: Catalogue,
    spec: ModelSpec,
    family: DiffusersFamily,
    path: Path,
    dtype: torch.dtype,
    skipped: Collection[str],
) -> Any:
    pipeline_class: Any = getattr(diffusers, family.checkpoint_class)
    options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    kinds = quantizations_of(spec, family)
    skipped = {*skipped, *spec.family_spec.unused}
    if path.is_dir():
        encoders = _load_text_encoders(catalogue, spec, family, path, dtype, skipped)
        left_out = {*skipped, *encoders}
        components = load_components(family, path, dtype, spec.variant, left_out, kinds) | encoders
        components |= family.load_others(path)
        # A T5 may be left out by the plan, or by an SD3 that has none.
        absent = {family.t5} if family.t5 and family.t5 not in components else set()
        pipeline = pipeline_class.from_pretrained(
            path, **components, **dict.fromkeys({*skipped, *absent}), **_unused(pipeline_class), **options
        )
    elif path.suffix in CHECKPOINT_SUFFIXES:
        folder, file = find_config(catalogue, spec, family, path), SingleFile(path)
        if folder is None:
            raise CatalogueError("the configuration of its file is not on this machine")
        variant = None if file.has_encoders else spec.variant
        refuse_two_encoders(spec, family, file)
        encoders = _load_text_encoders(catalogue, spec, family, folder, dtype, skipped)
        left_out = {*skipped, *encoders}
        components = load_file_components(file, family, folder, dtype, variant, left_out, kinds) | encoders
        components |= family.load_others(folder)
        absent = {name for name in skipped if name not in components}
        pipeline = pipeline_class.from_pretrained(
            folder, **components, **dict.fromkeys(absent), **_unused(pipeline_class), **options
        )
        pipeline.register_modules(scheduler=with_settings_of_file(pipeline.scheduler, file))
    else:
        raise CatalogueError("a checkpoint in one file must be a .safetensors or .gguf file")
    return pipeline


def _load_text_encoders(
    catalogue: Catalogue,
    spec: ModelSpec,
    family: DiffusersFamily,
    folder: Path,
    dtype: torch.dtype,
    skipped: Collection[str],
) -> dict[str, Any]:
    """Those that the row names files for, but for those that are to be skipped."""
    if not spec.text_encoders:
        return {}
    files = find_text_encoders(catalogue, spec, without_t5=family.t5 in skipped)
    if files is None:
        raise CatalogueError("the files of its text_encoders are not on this machine")
    wanted = {name: file for name, file in files.items() if name not in skipped}
    return load_text_encoders(wanted, read_index(family, folder), folder, dtype, quantizations_of(spec, family))


def read_quantization(spec: ModelSpec, path: Path) -> str | None:
    """How the denoiser of a model is quantized: as its row says, or as its file has it; None: it is not."""
    stored = read_folder_quantization(path) if path.is_dir() else quantization_of(SingleFile(path).tensors)
    return stored or spec.quantization


def read_encoder_quantization(
    catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path
) -> dict[str, str]:
    """Text encoder -> how it is quantized: as the model's row says, or as it is stored."""
    folder = path if path.is_dir() else find_config(catalogue, spec, family, path)
    stored = {} if folder is None else read_encoder_quantizations(folder)
    own = {name: kind for name, kind in stored.items() if name not in spec.text_encoders}
    return {**own, **spec.text_encoder_quantization}


def _unused(pipeline_class: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` that leave out what no job uses."""
    taken = inspect.signature(pipeline_class.__init__).parameters
    unused: dict[str, Any] = {name: None for name in sorted(UNUSED_COMPONENTS) if name in taken}
    return unused | ({"requires_safety_checker": False} if "requires_safety_checker" in taken else {})
