"""Reads weights from where the catalogue says: hub id, folder, or one `.safetensors` file; never a pickle.

Knows nothing of devices, or of which models stay in memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import PreTrainedModel, T5EncoderModel

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, ModelSpec
from contracts.catalogue.families import Mode
from contracts.errors import FailureCode, JobFailed
from contracts.hub.source import HubSource
from worker.families import DiffusersFamily


def locate_model(catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily) -> Path:
    """The checkpoint's folder or file on this machine, downloaded first where it is a hub id."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return place
    pipeline_class = _pipeline_class(family)
    options = {"revision": place.revision, "variant": spec.variant, "use_safetensors": True}
    return Path(pipeline_class.download(place.repository, **options))


def fetch_rest(catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path) -> None:
    """Download what loading a single file needs besides the file: configurations, missing text encoders."""
    if path.is_dir():
        return
    if spec.config is None:
        place = fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]
        snapshot_download(place, allow_patterns=_DESCRIPTIONS)
        return
    place = catalogue.locate(spec.config)
    if isinstance(place, Path):
        return
    keys = _keys_of(path)
    if not any(key.startswith(_ENCODERS) for key in keys):
        # Everything but the denoiser, which is in the file.
        download = _pipeline_class(family).download
        options = {
            "revision": place.revision,
            "variant": spec.variant,
            "use_safetensors": True,
            family.denoiser: None,
        }
        download(place.repository, **options)
        return
    lacks_t5 = family.t5 is not None and not any(key.startswith(_T5) for key in keys)
    weights = [f"{family.t5}/*.safetensors"] if lacks_t5 else []
    patterns = [*_DESCRIPTIONS, *weights]
    ignored = ["*.fp16*"]
    snapshot_download(place.repository, revision=place.revision, allow_patterns=patterns, ignore_patterns=ignored)


#: Configurations and tokenizers: everything of a checkpoint but its weights.
_DESCRIPTIONS = ["*.json", "*.txt", "*.model"]


def locate_controlnet(catalogue: Catalogue, spec: ControlNetSpec) -> Path:
    """The ControlNet's folder on this machine, downloaded first where it is a hub id."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return place
    patterns = ["config.json", place.file or "*.safetensors"]
    return Path(snapshot_download(place.repository, revision=place.revision, allow_patterns=patterns))


def locate_lora(catalogue: Catalogue, spec: LoraSpec) -> Path:
    """The adapter's file on this machine; a hub id must hold exactly one `.safetensors` file."""
    place = catalogue.place(spec)
    if isinstance(place, HubSource):
        patterns = [place.file or "*.safetensors"]
        place = Path(snapshot_download(place.repository, revision=place.revision, allow_patterns=patterns))
    files = sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]
    if len(files) != 1 or files[0].suffix != ".safetensors":
        message = f"LoRA {spec.id}: {spec.source} must be one .safetensors file"
        raise JobFailed(FailureCode.LORA_INCOMPATIBLE, message)
    return files[0]


def load_model(
    catalogue: Catalogue,
    spec: ModelSpec,
    family: DiffusersFamily,
    path: Path,
    dtype: torch.dtype,
    skipped: Collection[str] = (),
) -> Any:
    """The text-to-image pipeline with its components, but for those that are to be skipped, in host memory.

    Raises:
        Exception: whatever the libraries raise for weights that are missing, damaged, or no safetensors.
    """
    if path.is_dir():
        pipeline = _pipeline_class(family).from_pretrained(
            path, dtype=dtype, variant=spec.variant, use_safetensors=True, local_files_only=True,
            **dict.fromkeys(skipped),
        )  # fmt: skip
    elif path.suffix == ".safetensors":
        pipeline = _load_file(catalogue, spec, family, path, dtype)
    else:
        raise ValueError("a checkpoint in one file must be a .safetensors file")
    _check_complete(pipeline)
    _fix_vae_dtype(pipeline.vae, dtype)
    return pipeline


def _fix_vae_dtype(vae: Any, dtype: torch.dtype) -> None:
    """Keep a VAE that overflows in float16 (SDXL's) in float32 there; callers cast its inputs.

    With `force_upcast`, diffusers' SDXL pipelines (0.42) cast the shared weights to float32 and back in every
    call, also in bfloat16, where that is not needed.
    `test_a_vae_that_overflows_in_float16_works_in_float32_wherever_it_lives` fails when that changes.
    """
    if getattr(vae.config, "force_upcast", False):
        if dtype is torch.float16:
            vae.to(torch.float32)
        vae.register_to_config(force_upcast=False)


def _load_file(
    catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path, dtype: torch.dtype
) -> Any:
    """A pipeline from one file; what the file lacks comes from `spec.config`, a whole checkpoint then."""
    place = None if spec.config is None else catalogue.locate(spec.config)
    config = None if place is None else place.repository if isinstance(place, HubSource) else str(place)
    if config is None:
        return _pipeline_class(family).from_single_file(str(path), dtype=dtype)
    keys = _keys_of(path)
    if any(key.startswith(_ENCODERS) for key in keys):
        extra = {}
        if family.t5 and not any(key.startswith(_T5) for key in keys):
            extra[family.t5] = T5EncoderModel.from_pretrained(
                config, subfolder=family.t5, dtype=dtype, use_safetensors=True
            )
        return _pipeline_class(family).from_single_file(str(path), config=config, dtype=dtype, **extra)
    denoiser_class = getattr(diffusers, family.denoiser_class)
    denoiser = denoiser_class.from_single_file(str(path), config=config, subfolder=family.denoiser, dtype=dtype)
    options = {family.denoiser: denoiser, "dtype": dtype, "variant": spec.variant}
    return _pipeline_class(family).from_pretrained(config, use_safetensors=True, **options)


def _keys_of(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


#: Prefixes of text encoders' keys in a file that holds a whole checkpoint.
_ENCODERS = ("conditioner.", "cond_stage_model.", "text_encoders.")
_T5 = "text_encoders.t5xxl."


def _check_complete(pipeline: Any) -> None:
    """Refuse a pipeline with weights that the file lacks.

    diffusers' single-file loader (0.42) leaves them on the meta device without an error;
    `test_a_single_file_with_a_gap_is_refused` fails when that changes.
    """
    for name, part in pipeline.components.items():
        if isinstance(part, PreTrainedModel):
            part.tie_weights()  # T5's token embedding may be stored once and used twice
        if isinstance(part, torch.nn.Module):
            gaps = [key for key, tensor in part.named_parameters() if tensor.is_meta]
            if gaps:
                raise ValueError(f"{len(gaps)} weights of {name} are not in the file, {gaps[0]} for one")


def load_controlnet(family: DiffusersFamily, path: Path, dtype: torch.dtype) -> Any:
    """One ControlNet, in host memory."""
    controlnet_class = getattr(diffusers, family.controlnet)
    return controlnet_class.from_pretrained(path, dtype=dtype, use_safetensors=True, local_files_only=True)


def _pipeline_class(family: DiffusersFamily) -> Any:
    return getattr(diffusers, family.pipelines[Mode.TXT2IMG])
