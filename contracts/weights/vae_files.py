"""VAEs of the catalogue: what their folders or files hold, and whether they suit the models whose rows name them.

Reads configurations and headers; loads nothing. One that is not on this machine is passed over: its worker
says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.vaes import LatentSpace, VaeSpec
from contracts.errors import CatalogueError, NotFound
from contracts.weights.configs import read_config
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import read_header

WEIGHTS = "diffusion_pytorch_model.safetensors"
_TINY = "AutoencoderTiny"
_CLASSES = ("AutoencoderKL", _TINY)
#: A layer of every AutoencoderKL, under diffusers' names and the original ones.
_DECODER = re.compile(r"^((first_stage_model|vae)\.)?decoder\.conv_in\.weight$")
#: Why another VAE cannot make previews.
NEEDS_TINY = f"previews are made by an {_TINY} (TAESD), in a folder or beside its config.json"
#: diffusers' defaults of the factors, which a configuration may leave out.
_SCALING = {"AutoencoderKL": 0.18215, _TINY: 1.0}


def with_vaes(catalogue: Catalogue) -> Catalogue:
    """Return the catalogue with what the VAEs' configurations on this machine say.

    Raises:
        CatalogueError: a row is not a VAE that can be used, or a model's row names one that does not suit it.
    """
    vaes = tuple(_with_latents(catalogue, row) for row in catalogue.vaes)
    models = tuple(_with_own_latents(catalogue, row) for row in catalogue.models)
    known = catalogue.model_copy(update={"vaes": vaes, "models": models})
    for model in models:
        for key, id in (("vae", model.vae), ("preview_vae", model.preview_vae)):
            reason = None if id is None else _misfit(known, model, id, is_for_previews=key == "preview_vae")
            if reason is not None:
                raise CatalogueError(f"models: {model.id}: {key}: {reason}")
    return known


def _misfit(catalogue: Catalogue, model: ModelSpec, id: str, *, is_for_previews: bool) -> str | None:
    """Return why a model's row cannot name this VAE; None: it can."""
    try:
        row = catalogue.vae(id)
    except NotFound:
        names = ", ".join(row.id for row in catalogue.vaes) or "none"
        return f"[[vaes]] has no row {id!r}; its rows: {names}"
    if is_for_previews and _is_file_alone(catalogue, row):
        return f"{id} is a file without config.json; {NEEDS_TINY}"
    if is_for_previews and row.latents is not None and not row.latents.is_tiny:
        return f"{id} is an AutoencoderKL; {NEEDS_TINY}"
    return row.misfit(model.id, model.family, model.latents)


def _is_file_alone(catalogue: Catalogue, row: VaeSpec) -> bool:
    """Whether it is on this machine, and does not say what it is."""
    try:
        return row.latents is None and find_vae(catalogue, row) is not None
    except CatalogueError:  # the check of the row says why
        return False


def check_vae_row(row: VaeSpec, place: Path) -> None:
    """Check that a VAE in this folder, or this file, is whole; raises CatalogueError."""
    is_alone = read_latent_space(chosen_in(row, place)) is None
    file = weights_of(chosen_in(row, place))
    try:
        names = read_header(file).tensors.keys()
    except (NotSafetensors, OSError) as error:
        raise CatalogueError(f"{file.name} {_reason(error)}") from None
    if is_alone and not any(map(_DECODER.search, names)):
        raise CatalogueError("it is not the file of a VAE: it has no decoder.conv_in.weight")


def chosen_in(row: VaeSpec, place: Path) -> Path:
    """Return the folder, or the weights that the row chooses in it by `file` or `variant`; a file as it is."""
    if row.file is not None and place.is_dir():
        return place / row.file
    if row.variant is not None and place.is_dir():
        return place / f"{Path(WEIGHTS).stem}.{row.variant}.safetensors"
    return place


def weights_of(place: Path) -> Path:
    """Return the weights of a VAE in this folder, or this file."""
    return place / WEIGHTS if place.is_dir() else place


def configuration_of(place: Path) -> Mapping[str, Any]:
    """Return the configuration of a VAE in this folder, or beside this file; empty for a file alone."""
    return read_config(place if place.is_dir() else place.parent)


def read_latent_space(place: Path) -> LatentSpace | None:
    """Return the latents of the VAE in a folder or file; None for a file alone, which does not say them.

    Raises:
        CatalogueError: it holds none, or one of a class that cannot take the place of a model's.
    """
    config = configuration_of(place)
    if not config and not place.is_dir():
        return None
    named = config.get("_class_name")
    if named not in _CLASSES:
        raise CatalogueError(
            f"it is a {str(named)[:80]}; a VAE must be an {' or an '.join(_CLASSES)} with config.json"
        )
    return latent_space(config)


def latent_space(config: Mapping[str, Any]) -> LatentSpace:
    """Return the latents of a VAE with this configuration."""
    named = str(config.get("_class_name", _CLASSES[0]))
    is_tiny = named == _TINY
    blocks = config.get("decoder_block_out_channels" if is_tiny else "block_out_channels") or (
        (64, 64, 64, 64) if is_tiny else (64,)
    )
    shift = config.get("shift_factor")
    return LatentSpace(
        channels=config.get("latent_channels", 4),
        scaling_factor=config.get("scaling_factor", _SCALING.get(named, 1.0)),
        shift_factor=0.0 if shift is None else shift,
        stride=2 ** (len(blocks) - 1),
        is_tiny=is_tiny,
    )


def _with_latents(catalogue: Catalogue, row: VaeSpec) -> VaeSpec:
    try:
        place = find_vae(catalogue, row)
    except CatalogueError:  # the check of the row says why
        return row
    return row if place is None else row.model_copy(update={"latents": _read_latents(row, place)})


def find_vae(catalogue: Catalogue, row: VaeSpec, fetched: Path | None = None) -> Path | None:
    """Return the VAE's folder or file, here or in the hub's cache; None: it is still on a hub.

    Args:
        fetched: where it is, for one that was downloaded from a hub.
    """
    place = fetched or catalogue.place(row)
    if isinstance(place, Path):
        return chosen_in(row, place)
    cached = find_cached(catalogue, row)
    return None if cached is None else cached.paths[-1]


def _read_latents(row: VaeSpec, place: Path) -> LatentSpace | None:
    try:
        return read_latent_space(place)
    except CatalogueError as error:
        raise CatalogueError(f"{row.source}: {error}") from None


def _with_own_latents(catalogue: Catalogue, row: ModelSpec) -> ModelSpec:
    """The row with the latents of the checkpoint's own VAE, where its configuration is on this machine."""
    try:
        place = catalogue.place(row)
        if isinstance(place, Path) and place.is_file():
            place = place if row.config is None else catalogue.locate(row.config)
    except CatalogueError:  # loading it says why
        return row
    config = read_config(place / "vae") if isinstance(place, Path) and place.is_dir() else {}
    if config.get("_class_name") not in _CLASSES:
        return row
    return row.model_copy(update={"latents": latent_space(config)})


def _reason(error: Exception) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else str(getattr(error, "strerror", None) or error)
