"""VAEs of the catalogue: what their folders hold, and whether they suit the models whose rows name them.

Reads configurations and headers; loads nothing. A folder that is not on this machine is passed over: its worker
says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.models import ModelSpec
from contracts.catalogue.vaes import LatentSpace, VaeSpec
from contracts.errors import CatalogueError, NotFound
from contracts.weights.header_text import NotSafetensors
from contracts.weights.parameter_counts import read_config
from contracts.weights.safetensors import read_header

WEIGHTS = "diffusion_pytorch_model.safetensors"
_TINY = "AutoencoderTiny"
_CLASSES = ("AutoencoderKL", _TINY)
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
        if model.vae is None:
            continue
        try:
            reason = known.vae(model.vae).misfit(model.id, model.family, model.latents)
        except NotFound:
            names = ", ".join(row.id for row in vaes) or "none"
            reason = f"[[vaes]] has no row {model.vae!r}; its rows: {names}"
        if reason is not None:
            raise CatalogueError(f"models: {model.id}: vae: {reason}")
    return known


def check_vae_row(catalogue: Catalogue, row: VaeSpec) -> None:
    """Check that a VAE's folder is on this machine and whole; raises CatalogueError."""
    folder = catalogue.vae_folder(row)
    read_latent_space(folder)
    try:
        read_header(folder / WEIGHTS)
    except (NotSafetensors, OSError) as error:
        raise CatalogueError(f"{row.source}: {WEIGHTS} {_reason(error)}") from None


def read_latent_space(folder: Path) -> LatentSpace:
    """Return the latents of the VAE in a folder.

    Raises:
        CatalogueError: it holds none, or one of a class that cannot take the place of a model's.
    """
    config = read_config(folder)
    named = config.get("_class_name")
    if named not in _CLASSES:
        raise CatalogueError(
            f"{folder}: it is a {str(named)[:80]}; a VAE must be an {' or an '.join(_CLASSES)} with config.json"
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
        folder = catalogue.vae_folder(row)
    except CatalogueError:
        return row
    return row.model_copy(update={"latents": read_latent_space(folder)})


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
