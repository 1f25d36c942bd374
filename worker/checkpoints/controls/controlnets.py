"""Reads ControlNets: from a folder, from weights beside `config.json`, or from one file alone.

A file alone says nothing of its architecture: it is taken to be that of the model it is used with, and every layer
must then have its weights. Knows nothing of devices.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import load_file

from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.controlnet_classes import class_of_controlnet
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.controls.control_lora_files import is_control_lora
from contracts.weights.controls.controlnet_files import RGB, T2I_REMEDY, check_modes, refuse_other_kinds
from contracts.weights.counts.parameter_counts import controlnet_parts
from worker.checkpoints.components import load_complete
from worker.checkpoints.controls.control_loras import whole_control_lora
from worker.checkpoints.one_file.component import assemble, renamed
from worker.checkpoints.quantized.scaled import unscaled
from worker.checkpoints.tracking import Tensors
from worker.families import DiffusersFamily

#: Names of a UNet's ControlNet in the layout of the original release.
_ORIGINAL = re.compile(r"^(control_model\.)?time_embed\.0\.weight$")
_PREFIX = "control_model."
#: Layers of SDXL that diffusers' converter (0.42) does not know.
_SIZES = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}


def load_controlnet(
    family: DiffusersFamily, path: Path, dtype: torch.dtype, denoiser: Any = None, modes: int = 0
) -> Any:
    """One ControlNet, in host memory.

    Args:
        path: its folder, its weights or their index beside `config.json`, or a file alone.
        denoiser: of the model that it is used with, by which a file alone is read.
        modes: kinds of control that its row names.

    Raises:
        CatalogueError: it is of another kind, lacks weights, or holds some that no layer takes.
        Exception: whatever the libraries raise for damaged files.
    """
    config = read_config(path if path.is_dir() else path.parent)
    if not config and denoiser is not None and path.suffix == ".safetensors" and path.is_file():
        return _load_file(family, path, dtype, denoiser, modes)
    check_config(family, config, modes)
    controlnet_class = getattr(diffusers, class_of_controlnet(config))
    return _union(load_configured(controlnet_class, path, "the ControlNet", dtype))


def load_configured(module_class: Any, path: Path, part: str, dtype: torch.dtype) -> Any:
    """A module with a `config.json`, from its folder, or from its weights, or their index, beside that.

    Args:
        part: what errors call it.

    Raises:
        CatalogueError: it lacks weights, or holds some that no layer takes.
    """
    if path.is_dir():
        return load_complete(module_class, path, part, dtype, None)
    # diffusers finds weights by their name alone.
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in controlnet_parts(path):
            link = folder / file.name
            if file == path:
                index = ".index.json" if path.suffix == ".json" else ""
                link = folder / f"diffusion_pytorch_model.safetensors{index}"
            link.symlink_to(file.absolute())
        return load_complete(module_class, folder, part, dtype, None)


def _union(controlnet: Any) -> Any:
    """Let a union of FLUX read its mode for every image.

    Some of diffusers' pipelines (0.42) pass one mode for all images of a call;
    `test_images_of_different_modes_share_calls_and_are_what_they_are_alone` has such calls.
    """

    def spread(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        del module
        mode, rows = kwargs.get("controlnet_mode"), len(kwargs["hidden_states"])
        spread_mode = {} if mode is None else {"controlnet_mode": mode.expand(rows, -1)}
        return args, {**kwargs, **spread_mode}

    if controlnet.config.get("num_mode") is not None:
        controlnet.register_forward_pre_hook(spread, with_kwargs=True)
    return controlnet


def check_config(family: DiffusersFamily, config: Mapping[str, Any], modes: int = 0) -> None:
    """Refuse a ControlNet of another class, which would be loaded in part.

    Args:
        modes: kinds of control that its row names.

    Raises:
        CatalogueError: it is of another class, takes other images, or is a union whose kinds its row does not
            name.
    """
    if not config:
        raise CatalogueError(
            "a ControlNet must be a folder with config.json and its weights; config.json is missing"
        )
    named = class_of_controlnet(config)
    if named not in family.controlnet_classes:
        if named == T2I_ADAPTER:
            raise CatalogueError(f"it is a {T2I_ADAPTER}, not a ControlNet: {T2I_REMEDY}")
        shown = named[:80] or "ControlNet without a class name"
        raise CatalogueError(f"it is a {shown}, and family {family.id} needs a {family.controlnet}")
    _check_channels(config)
    check_modes(config, modes)


def _check_channels(config: Mapping[str, Any]) -> None:
    channels = config.get("conditioning_channels", RGB)
    if channels != RGB:
        raise CatalogueError(
            f"it takes control images of {channels} channels (conditioning_channels), not of {RGB}"
        )


# -- one file alone ---------------------------------------------------------------------------------------


def _load_file(family: DiffusersFamily, path: Path, dtype: torch.dtype, denoiser: Any, modes: int) -> Any:
    controlnet_class = getattr(diffusers, family.controlnet)
    stored = unscaled(load_file(path), dtype)
    refuse_other_kinds(stored, family.controlnet)
    check_modes({}, modes)
    tensors = _named_as_diffusers(stored, dtype, denoiser)
    config = config_beside(controlnet_class, denoiser, _config_of(tensors))
    _check_channels(config)
    remedy = (
        f"without a config.json beside its file, a ControlNet must have the {family.denoiser} architecture of the "
        "model; put its config.json there, or use its folder"
    )
    return assemble(controlnet_class, config, tensors, dtype, "ControlNet", remedy)


def config_beside(controlnet_class: Any, denoiser: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a ControlNet that has a denoiser's architecture, but for what is its own."""
    known = inspect.signature(controlnet_class.__init__).parameters
    return {name: value for name, value in {**denoiser.config, **own}.items() if name in known}


def _named_as_diffusers(stored: Tensors, dtype: torch.dtype, denoiser: Any) -> Tensors:
    """All tensors of the ControlNet in a file; raises CatalogueError."""
    if is_control_lora(stored):
        return whole_control_lora(stored, denoiser, dtype)
    return _original_names(stored, denoiser) if any(map(_ORIGINAL.match, stored)) else stored


def _original_names(stored: Tensors, denoiser: Any) -> Tensors:
    """The tensors under diffusers' names; raises CatalogueError where its converter drops one."""
    plain = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}

    def convert(tensors: Tensors) -> Tensors:
        sizes = {
            f"{new}{name.removeprefix(old)}": tensors.pop(name)
            for old, new in _SIZES.items()
            for name in list(tensors)
            if name.startswith(old)
        }
        return {**convert_controlnet_checkpoint(tensors, dict(denoiser.config)), **sizes}

    return renamed(plain, convert, "ControlNet")


def _config_of(tensors: Tensors) -> dict[str, Any]:
    """What the shapes and names of a file say of its architecture."""
    config: dict[str, Any] = {}
    for name, blocks in (("num_layers", "transformer_blocks"), ("num_single_layers", "single_transformer_blocks")):
        numbers = [int(found[1]) for key in tensors if (found := re.match(rf"{blocks}\.(\d+)\.", key))]
        if numbers or any(key.startswith("transformer_blocks.") for key in tensors):
            config[name] = max(numbers, default=-1) + 1
    embedder = "controlnet_cond_embedding"
    first = tensors.get(f"{embedder}.conv_in.weight")
    if first is not None and first.dim() == 4:
        config["conditioning_channels"] = first.shape[1]
        wider = [
            tensor.shape[0]
            for key, tensor in sorted(tensors.items(), key=lambda item: _number(item[0]))
            if re.fullmatch(rf"{embedder}\.blocks\.\d*[13579]\.weight", key)
        ]
        config["conditioning_embedding_out_channels"] = (first.shape[0], *wider)
    if any(key.startswith("time_text_embed.") for key in tensors):
        config["guidance_embeds"] = any(key.startswith("time_text_embed.guidance_embedder.") for key in tensors)
    if any(key.startswith("controlnet_mode_embedder.") for key in tensors):
        config["num_mode"] = len(tensors["controlnet_mode_embedder.weight"])
    return config


def _number(key: str) -> int:
    return int("".join(filter(str.isdigit, key)) or 0)


# -- the model that it is for ------------------------------------------------------------------------------

#: Entries that a ControlNet's configuration has in common with its model's denoiser where the two work together.
_SHARED = (
    "cross_attention_dim", "addition_embed_type", "projection_class_embeddings_input_dim", "block_out_channels",
    "joint_attention_dim", "pooled_projection_dim", "dim", "n_heads",
)  # fmt: skip


def check_controlnet_fits(controlnet: Any, denoiser: Any) -> None:
    """Refuse a ControlNet that was made for a model of other widths; raises CatalogueError."""
    for name in _SHARED:
        own, needed = (_plain(part.config.get(name)) for part in (controlnet, denoiser))
        if own != needed and name in controlnet.config and name in denoiser.config:
            raise CatalogueError(f"its {name} is {own}, and the model's is {needed}: it is made for another model")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
