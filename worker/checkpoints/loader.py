"""Reads weights from a folder in diffusers layout or from one `.safetensors` file; never a pickle.

Knows nothing of devices, or of which models stay in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import Mode
from contracts.errors import CatalogueError
from contracts.weights.parameter_counts import controlnet_parts, read_config
from worker.checkpoints.components import load_complete, load_components
from worker.checkpoints.original_layout import load_file_components, with_settings_of_file
from worker.checkpoints.single_file import SingleFile
from worker.checkpoints.sources import find_config
from worker.families import DiffusersFamily

#: Channels of a control image.
_RGB = 3


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
        CatalogueError: the checkpoint is not a safetensors file, is of another kind, lacks weights, or holds some
            that nothing takes.
        Exception: whatever the libraries raise for damaged files.
    """
    pipeline_class: Any = getattr(diffusers, family.pipelines[Mode.TXT2IMG])
    options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    if path.is_dir():
        components = load_components(family, path, dtype, spec.variant, skipped)
        # A T5 may be left out by the plan, or by an SD3 that has none.
        absent = {family.t5} if family.t5 and family.t5 not in components else set()
        pipeline = pipeline_class.from_pretrained(
            path, **components, **dict.fromkeys({*skipped, *absent}), **options
        )
    elif path.suffix == ".safetensors":
        folder, file = find_config(catalogue, spec, family, path), SingleFile(path)
        if folder is None:
            raise CatalogueError("the configuration of its file is not on this machine")
        components = load_file_components(file, family, folder, dtype, None if file.has_encoders else spec.variant)
        pipeline = pipeline_class.from_pretrained(folder, **components, **options)
        pipeline.register_modules(scheduler=with_settings_of_file(pipeline.scheduler, file))
    else:
        raise CatalogueError("a checkpoint in one file must be a .safetensors file")
    misfit = family.misfit(pipeline.components)
    if misfit is not None:
        raise CatalogueError(f"its parts do not make a {family.id} model: {misfit}")
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


def load_controlnet(family: DiffusersFamily, path: Path, dtype: torch.dtype) -> Any:
    """One ControlNet, in host memory, from its folder, or from its weights or their index beside `config.json`.

    Raises:
        CatalogueError: it is of another class, a union of several, or lacks weights.
        Exception: whatever the libraries raise for damaged files.
    """
    controlnet_class = getattr(diffusers, family.controlnet)
    config = read_config(path if path.is_dir() else path.parent)
    _check_controlnet(family, config)
    if path.is_dir():
        return load_complete(controlnet_class, path, "the ControlNet", dtype, None)
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
        return load_complete(controlnet_class, folder, "the ControlNet", dtype, None)


def _check_controlnet(family: DiffusersFamily, config: Mapping[str, Any]) -> None:
    """Refuse a ControlNet of another class, which would be loaded in part; raises CatalogueError."""
    if not config:
        raise CatalogueError(
            "a ControlNet must be a folder with config.json and its weights; config.json is missing"
        )
    named = config.get("_class_name")
    if named != family.controlnet:
        raise CatalogueError(f"it is a {str(named)[:80]}, and family {family.id} needs a {family.controlnet}")
    channels = config.get("conditioning_channels", _RGB)
    if channels != _RGB:
        raise CatalogueError(
            f"it takes control images of {channels} channels (conditioning_channels), not of {_RGB}"
        )
    if config.get("num_mode") is not None:
        raise CatalogueError(
            f"it is a union of {config['num_mode']} kinds of control (num_mode), of which no request can name one"
        )


#: Entries that a ControlNet's configuration has in common with its model's denoiser where the two work together.
_SHARED = (
    "cross_attention_dim", "addition_embed_type", "projection_class_embeddings_input_dim", "block_out_channels",
    "joint_attention_dim", "pooled_projection_dim",
)  # fmt: skip


def check_controlnet_fits(controlnet: Any, denoiser: Any) -> None:
    """Refuse a ControlNet that was made for a model of other widths; raises CatalogueError."""
    for name in _SHARED:
        own, needed = (_plain(part.config.get(name)) for part in (controlnet, denoiser))
        if own != needed and name in controlnet.config and name in denoiser.config:
            raise CatalogueError(f"its {name} is {own}, and the model's is {needed}: it is made for another model")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
