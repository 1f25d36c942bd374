"""The part of its family's abilities that a checkpoint has: tasks, and settings that schedulers must follow.

Read from configurations and headers; loads nothing. A checkpoint that is not on this machine has no limits here:
its worker says what cannot be done.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Family, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import FEW_STEPS, LCM_GUIDANCE
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.checkpoint_files import CHECKPOINT_PREFIX, AnyTensor, quantization_of, read_tensors
from contracts.weights.class_checkpoints import class_limits
from contracts.weights.configs import read_config
from contracts.weights.formats.header_text import UnreadableWeights
from contracts.weights.quantized import read_encoder_quantizations, read_folder_quantization

#: Of FLUX.2 klein, whose `model_index.json` says whether it is distilled.
_DISTILLED_STEPS = 4
#: Of a Z-Image ControlNet that reads an image's latents and nothing else.
_IMAGE_CHANNELS = 16
#: A denoiser's first layer in the original layout, with and without the prefix of a whole checkpoint, and in
#: diffusers' layout.
_FIRST_LAYERS = (
    "model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight",
    "model.diffusion_model.img_in.weight", "img_in.weight", "x_embedder.weight",
)  # fmt: skip
#: In the original layout: what every FLUX.1 transformer has.
_FLUX_INPUTS = frozenset({"img_in", "time_in", "vector_in", "double_blocks"})


def with_checkpoint_limits(catalogue: Catalogue) -> Catalogue:
    """Return the catalogue with the limits of the checkpoints that are on this machine."""
    models = tuple(_with_limits(catalogue, row) for row in catalogue.models)
    controlnets = tuple(_with_masks(catalogue, row) for row in catalogue.controlnets)
    return catalogue.model_copy(update={"models": models, "controlnets": controlnets})


def read_scheduler_config(folder: Path) -> dict[str, object]:
    """Return the configuration of a checkpoint's scheduler; empty where the folder has none that can be read."""
    try:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def settings_of_keys(keys: Collection[str]) -> dict[str, object]:
    """Return what a single file says of its training by empty tensors: `v_pred` and `ztsnr` (A1111, ComfyUI)."""
    settings: dict[str, object] = {}
    if "v_pred" in keys:
        settings["prediction_type"] = "v_prediction"
    if "ztsnr" in keys:
        settings["rescale_betas_zero_snr"] = True
    return settings


def tasks_of_channels(channels: int, latent_channels: int) -> tuple[Task, ...]:
    """Return the tasks of a UNet by its input channels; empty: all.

    One that also takes a mask and the masked image's latents can only inpaint.
    """
    return (Task.INPAINT,) if channels == 2 * latent_channels + 1 else ()


def _with_limits(catalogue: Catalogue, row: ModelSpec) -> ModelSpec:
    try:
        limits = _limits(catalogue, row)
    except (CatalogueError, UnreadableWeights, OSError):  # loading it says why
        return row
    limited = _with_few_steps(row.model_copy(update=limits))
    if limited.default("scheduler") not in limited.schedulers and limited.schedulers:
        defaults = {**limited.defaults, "scheduler": limited.schedulers[0]}
        if "scheduler" in row.defaults:
            raise CatalogueError(
                f"{row.id}: the default scheduler {row.defaults['scheduler']!r} does not fit the checkpoint; use "
                f"{', '.join(limited.schedulers)}"
            )
        limited = limited.model_copy(update={"defaults": defaults})
    return limited


def _with_masks(catalogue: Catalogue, row: ControlNetSpec) -> ControlNetSpec:
    """The row with whether its layers have channels for a mask, which those of Z-Image's first one lack."""
    try:
        place = _path(catalogue, row)
        config = {} if place is None else read_config(place if place.is_dir() else place.parent)
    except (CatalogueError, OSError):  # loading it says why
        return row
    channels = config.get("control_in_dim")
    return row if channels is None else row.model_copy(update={"reads_masks": channels > _IMAGE_CHANNELS})


def _with_few_steps(row: ModelSpec) -> ModelSpec:
    """The row with the defaults of a checkpoint that is distilled for few steps; the operator's own come first."""
    few: Mapping[str, object] = FEW_STEPS.get(str(row.scheduler_config.get("_class_name")), {})
    sign, defaults = row.family_spec.few_steps
    if sign and sign.items() <= row.scheduler_config.items():
        few = defaults
    usable = {name: value for name, value in few.items() if name in row.family_spec.defaults}
    return row.model_copy(update={"defaults": {**usable, **row.defaults}})


def _limits(catalogue: Catalogue, row: ModelSpec) -> dict[str, object]:
    place = _path(catalogue, row)
    if place is None:
        return {}
    keys: Mapping[str, tuple[int, ...]] = {}
    tensors: Mapping[str, AnyTensor] = {}
    folder: Path | None = place
    if place.is_file():
        config = None if row.config is None else catalogue.locate(row.config)
        folder = config if isinstance(config, Path) else None
        tensors = read_tensors(place)
        keys = {name: tensor.shape for name, tensor in tensors.items()}
    limits: dict[str, object] = {"quantization": row.quantization or _stored_quantization(place, tensors)}
    if folder is not None:
        stored = read_encoder_quantizations(folder)
        own = {name: kind for name, kind in stored.items() if name not in row.text_encoders}
        limits["text_encoder_quantization"] = {**own, **row.text_encoder_quantization}
    scheduler = {} if folder is None else read_scheduler_config(folder)
    if scheduler or settings_of_keys(keys):
        limits["scheduler_config"] = {**scheduler, **settings_of_keys(keys)}
    pipeline = row.pipeline or _other_class(row.checkpoint_family, folder, keys)
    if pipeline is not None:
        limits["pipeline"] = pipeline
    if folder is not None and row.guidance_layers is None:
        limits["guidance_layers"] = _guidance_layers(folder)
    if folder is not None and row.family_spec.prompted_by_class:
        limits |= class_limits(row, folder)
    channels = _input_channels(folder, keys)
    if channels is not None and folder is not None:
        latent_channels = read_config(folder / "vae").get("latent_channels", 4)
        tasks = tasks_of_channels(channels, latent_channels)
        if not keys and read_config(folder / "unet").get("time_cond_proj_dim"):
            # Guidance is an input of the UNet, as in LCM: it makes no pass without the prompt.
            unguided = ("negative_prompt", "guidance_rescale", "guidance")
            limits["refuses"] = tuple(dict.fromkeys([*row.refuses, *unguided]))
            limits["defaults"] = {"guidance_scale": LCM_GUIDANCE, **row.defaults}
        if tasks:
            limits["only_tasks"] = tasks
    family = row.family_spec.of_checkpoint(pipeline)
    if family.embeds_guidance and _ignores_guidance(folder, keys):
        limits["refuses"] = tuple(dict.fromkeys([*row.refuses, "guidance_scale"]))
    if folder is not None and read_config(folder, "model_index.json").get("is_distilled") is True:
        limits["refuses"] = tuple(dict.fromkeys([*row.refuses, "guidance_scale", "negative_prompt"]))
        limits["defaults"] = {"num_inference_steps": _DISTILLED_STEPS, **row.defaults}
    return limits


def _stored_quantization(place: Path, tensors: Mapping[str, AnyTensor]) -> str | None:
    return read_folder_quantization(place) if place.is_dir() else quantization_of(tensors)


def _ignores_guidance(folder: Path | None, keys: Collection[str]) -> bool:
    """Whether a FLUX.1 denoiser has no input for guidance, as schnell's: any value gives the same image."""
    if keys:
        begins = {name.removeprefix(CHECKPOINT_PREFIX).partition(".")[0] for name in keys}
        return begins >= _FLUX_INPUTS and "guidance_in" not in begins
    return folder is not None and read_config(folder / "transformer").get("guidance_embeds") is False


def _guidance_layers(folder: Path) -> int | None:
    """Blocks of a transformer, or of the middle of a UNet, which has as many as its last resolution."""
    transformer = read_config(folder / "transformer").get("num_layers")
    unet = read_config(folder / "unet")
    middle = unet.get("transformer_layers_per_block", 1) if unet else None
    while isinstance(middle, list) and middle:
        middle = middle[-1]
    found = transformer or middle
    return found if isinstance(found, int) else None


def _path(catalogue: Catalogue, row: ModelSpec | ControlNetSpec) -> Path | None:
    """The folder or file on this machine, or in the hub's cache."""
    place = catalogue.place(row)
    if isinstance(place, HubSource):
        cached = find_cached(catalogue, row)
        if cached is None:
            return None
        return cached.folder if place.file is None else cached.paths[0]
    return place


def _other_class(family: Family, folder: Path | None, keys: Mapping[str, tuple[int, ...]]) -> str | None:
    """The class of a checkpoint that is one of its family's other ones: by its index, else by its denoiser."""
    index = {} if folder is None else read_config(folder, "model_index.json")
    named = index.get("_class_name")
    other = None if named is None else family.other_checkpoints.get(named)
    if other is not None and other.index_entries.items() <= index.items():
        return str(named)
    channels = _input_channels(None, keys)
    others = {other.denoiser_channels: other.pipeline for other in family.other_checkpoints.values()}
    return None if channels is None else others.get(channels)


def _input_channels(folder: Path | None, keys: Mapping[str, tuple[int, ...]]) -> int | None:
    """Input channels of the denoiser, by the file if there is one; else of a UNet, by its configuration."""
    for name in _FIRST_LAYERS:
        if name in keys:
            return keys[name][1]
    channels = None if folder is None or keys else read_config(folder / "unet").get("in_channels")
    return channels if isinstance(channels, int) else None
