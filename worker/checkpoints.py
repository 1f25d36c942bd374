"""Reads weights from where the catalogue says: hub id, folder, or one `.safetensors` file. Never a pickle.

Knows nothing of which models stay warm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import snapshot_download

from contracts.catalogue import Catalogue, ControlNetSpec, LoraSpec, ModelSpec
from contracts.errors import FailureCode, JobFailed
from contracts.families import Mode
from worker.families import FamilyCode


def pick_device(wanted: str) -> torch.device:
    """The device that the settings name; `auto` is CUDA where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def pick_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The dtype that the model's row names; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]


def locate_model(catalogue: Catalogue, spec: ModelSpec, family: FamilyCode) -> Path:
    """The checkpoint's folder or file on this machine, fetched from the hub first where it is a hub id."""
    place = catalogue.locate(spec.source)
    if isinstance(place, Path):
        return place
    pipeline_class = _pipeline_class(family)
    return Path(pipeline_class.download(place, variant=spec.variant, use_safetensors=True))


def locate_controlnet(catalogue: Catalogue, spec: ControlNetSpec) -> Path:
    """The ControlNet's folder on this machine, fetched from the hub first where it is a hub id."""
    place = catalogue.locate(spec.source)
    if isinstance(place, Path):
        return place
    return Path(snapshot_download(place, allow_patterns=["config.json", "*.safetensors"]))


def locate_lora(catalogue: Catalogue, spec: LoraSpec) -> Path:
    """The adapter's file on this machine; a hub id must hold exactly one `.safetensors` file."""
    place = catalogue.locate(spec.source)
    if isinstance(place, str):
        place = Path(snapshot_download(place, allow_patterns=["*.safetensors"]))
    files = sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]
    if len(files) != 1 or files[0].suffix != ".safetensors":
        message = f"LoRA {spec.id}: {spec.source} must be one .safetensors file"
        raise JobFailed(FailureCode.LORA_INCOMPATIBLE, message)
    return files[0]


def load_model(catalogue: Catalogue, spec: ModelSpec, family: FamilyCode, path: Path, dtype: torch.dtype) -> Any:
    """The text-to-image pipeline with all its components, in host memory."""
    pipeline_class = _pipeline_class(family)
    if path.is_dir():
        return pipeline_class.from_pretrained(
            path, dtype=dtype, variant=spec.variant, use_safetensors=True, local_files_only=True
        )
    if path.suffix != ".safetensors":
        raise ValueError("a checkpoint in one file must be a .safetensors file")
    config = None if spec.config is None else str(catalogue.locate(spec.config))
    return pipeline_class.from_single_file(str(path), config=config, dtype=dtype)


def load_controlnet(family: FamilyCode, path: Path, dtype: torch.dtype) -> Any:
    """One ControlNet, in host memory."""
    controlnet_class = getattr(diffusers, family.controlnet)
    return controlnet_class.from_pretrained(path, dtype=dtype, use_safetensors=True, local_files_only=True)


def _pipeline_class(family: FamilyCode) -> Any:
    return getattr(diffusers, family.pipelines[Mode.TXT2IMG])
