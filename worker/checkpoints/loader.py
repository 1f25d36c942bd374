"""Reads weights from a folder in diffusers layout or from one `.safetensors` file; never a pickle.

Knows nothing of devices, or of which models stay in memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from transformers import PreTrainedModel, T5EncoderModel

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import Mode
from contracts.errors import CatalogueError
from contracts.weights.parameter_counts import controlnet_parts
from worker.checkpoints.single_file import SingleFile
from worker.checkpoints.sources import find_config
from worker.families import DiffusersFamily


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
        CatalogueError: the checkpoint is not a safetensors file, or weights are missing.
        Exception: whatever the libraries raise for weights that are missing or damaged.
    """
    if path.is_dir():
        pipeline = _pipeline_class(family).from_pretrained(
            path, dtype=dtype, variant=spec.variant, use_safetensors=True, local_files_only=True,
            **dict.fromkeys(skipped),
        )  # fmt: skip
    elif path.suffix == ".safetensors":
        pipeline = _load_file(catalogue, spec, family, path, dtype)
    else:
        raise CatalogueError("a checkpoint in one file must be a .safetensors file")
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
    file, folder = SingleFile(path), find_config(catalogue, spec, family, path)
    if folder is None:
        raise CatalogueError("the configuration of its file is not on this machine")
    config, options = str(folder), {"dtype": dtype, "local_files_only": True}
    if spec.config is None or file.has_encoders:
        extra = {}
        if spec.config is not None and family.t5 and not file.has_t5:
            extra[family.t5] = T5EncoderModel.from_pretrained(
                config, subfolder=family.t5, use_safetensors=True, **options
            )
        return _pipeline_class(family).from_single_file(str(path), config=config, **options, **extra)
    denoiser_class = getattr(diffusers, family.denoiser_class)
    denoiser = denoiser_class.from_single_file(str(path), config=config, subfolder=family.denoiser, **options)
    return _pipeline_class(family).from_pretrained(
        config, use_safetensors=True, variant=spec.variant, **{family.denoiser: denoiser}, **options
    )


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
                raise CatalogueError(f"{len(gaps)} weights of {name} are not in the file, {gaps[0]} for one")


def load_controlnet(family: DiffusersFamily, path: Path, dtype: torch.dtype) -> Any:
    """One ControlNet, in host memory, from its folder, or from its weights or their index beside `config.json`."""
    controlnet_class = getattr(diffusers, family.controlnet)
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if path.is_dir():
        return controlnet_class.from_pretrained(path, **options)
    # diffusers finds weights by their name alone.
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in controlnet_parts(path):
            link = folder / part.name
            if part == path:
                link = (
                    folder
                    / f"diffusion_pytorch_model.safetensors{'.index.json' if path.suffix == '.json' else ''}"
                )
            link.symlink_to(part.absolute())
        return controlnet_class.from_pretrained(folder, **options)


def _pipeline_class(family: DiffusersFamily) -> Any:
    return getattr(diffusers, family.pipelines[Mode.TXT2IMG])
