"""Options of the web UI: those that act on a caller's own images, and those that have one value here.

In the web UI an option changes everybody's images. Here it is the default of one API key, and `override_settings`
of a request goes before it. Does not store them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from app.dialects.a1111.neutral import Only, Text
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem
from contracts.requests.strict_model import StrictModel

MODEL, CLIP_SKIP = "sd_model_checkpoint", "CLIP_stop_at_last_layers"
_CLIP_SKIP = "1 more than `clip_skip` of our own requests. Default: 1, no layer is skipped."
_PREVIEWS = "Whether `/sdapi/v1/progress` has previews of the images. Default: true."
_SAVE = "Only for compatibility: images are kept with their job. Default: true."
_PNG = "its images are PNG files"


class A1111OptionsRequest(StrictModel):
    """Options to set. Null, and the value that an option already has, change nothing."""

    sd_model_checkpoint: Text | None = Field(
        None, description="Model: a title from `/sdapi/v1/sd-models`. Default: the service's default model."
    )
    CLIP_stop_at_last_layers: int | None = Field(1, ge=1, le=9, description=_CLIP_SKIP)
    enable_pnginfo: Annotated[Any, Only(True, why="images always have their parameters inside")] = Field(
        True, description="Only true: images have their parameters inside. Default: true."
    )
    live_previews_enable: bool | None = Field(True, description=_PREVIEWS)
    live_previews_image_format: Annotated[Any, Only("jpeg", why="previews are JPEG files")] = Field(
        "jpeg", description="Only `jpeg`. Default: `jpeg`."
    )
    sd_vae: Annotated[Any, Only("Automatic", "None", "", why="each model has its own VAE")] = Field(
        "Automatic", description="Only `Automatic`: each model has its own. Default: `Automatic`."
    )
    samples_format: Annotated[Any, Only("png", why=_PNG)] = Field("png", description="Only `png`. Default: `png`.")
    samples_save: bool | None = Field(True, description=_SAVE)
    return_grid: Annotated[Any, Only(False, why="grids are not made")] = Field(
        False, description="Only false: grids are not made. Default: false."
    )
    forge_additional_modules: Annotated[Any, Only([], why="each model has all its parts")] = Field(
        [], description="Only empty: each model has all its parts. Default: empty."
    )
    eta_noise_seed_delta: Annotated[Any, Only(0, why="noise comes from the seed alone")] = Field(
        0, description="Only 0. Default: 0."
    )


class A1111Options(A1111OptionsRequest):
    """Your options: what you have set, else the defaults."""

    # A null sets nothing, so that none is ever shown.
    CLIP_stop_at_last_layers: int = Field(1, ge=1, le=9, description=_CLIP_SKIP)
    live_previews_enable: bool = Field(True, description=_PREVIEWS)
    samples_save: bool = Field(True, description=_SAVE)


def show_options(stored: Mapping[str, Any], default_model: str) -> A1111Options:
    """Return a caller's options; what a client gets here and sends back unchanged is taken."""
    known = {name: value for name, value in stored.items() if name in A1111Options.model_fields}
    return A1111Options(sd_model_checkpoint=default_model).model_copy(update=known)


def given_options(options: A1111OptionsRequest, catalogue: Catalogue) -> dict[str, Any]:
    """Return the options that were sent, as they are stored: the model by its id."""
    given = options.model_dump(exclude_unset=True, exclude_none=True)
    if MODEL in given:
        given[MODEL] = model_named(given[MODEL], catalogue)
    return given


def model_problems(options: A1111OptionsRequest, catalogue: Catalogue, prefix: str = "") -> list[FieldProblem]:
    """Return what is wrong with the model, which only the catalogue knows; `prefix` is that of the field."""
    name, ids = options.sd_model_checkpoint, [row.id for row in catalogue.models]
    if name is None or model_named(name, catalogue) in ids:
        return []
    return [FieldProblem(f"{prefix}{MODEL}", f"unknown model {name[:80]!r}", ids)]


def without_hash(title: str) -> str:
    """The name in a title of the web UI, which may end in a hash: `name [1234abcd]`."""
    return title.strip().partition(" [")[0]


def model_named(title: str, catalogue: Catalogue) -> str:
    """Return the id in a title of the web UI, `ID.safetensors [HASH]`; the title itself if it contains none."""
    ids = {row.id for row in catalogue.models}
    return next((name for name in _stripped(title) if name in ids), title)


def _stripped(title: str) -> Iterator[str]:
    yield title
    name = without_hash(title)
    yield name
    yield name.removesuffix(".safetensors").removesuffix(".ckpt")
