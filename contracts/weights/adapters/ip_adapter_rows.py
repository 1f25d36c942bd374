"""The IP-Adapters of the catalogue: whether their files and the image encoders that they name fit together.

Reads headers and configurations; loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.adapters.ip_adapter_files import IpAdapterFacts, Reads, read_ip_adapter
from contracts.weights.parameter_counts import read_config

_MODEL = "CLIPVisionModelWithProjection"
#: transformers' defaults of the two widths, which a configuration may leave out.
_STATES, _EMBEDDING = ("hidden_size", 768), ("projection_dim", 512)


def check_ip_adapter_row(catalogue: Catalogue, row: IpAdapterSpec, path: Path | None = None) -> None:
    """Check an IP-Adapter's file, and that its image encoder gives what it reads.

    Args:
        path: its file, where it came from a hub.

    Raises:
        AdapterRefused: the file is not an IP-Adapter, or of a kind that is not supported.
        CatalogueError: its family runs none, or its image encoder is missing or does not fit.
    """
    if not any("ip_adapters" in fields for fields in row.family_spec.modes.values()):
        raise CatalogueError(f"IP-Adapters of family {row.family} are not supported")
    facts = _facts(catalogue, row, path)
    reads: Reads = "embedding" if facts is None else facts.reads
    width = width_of_encoder(catalogue.image_encoder(row.image_encoder), reads)
    if facts is not None and width != facts.image_width:
        raise CatalogueError(
            f"the IP-Adapter reads {facts.image_width} values of an image, and the {_width_name(reads)} of its "
            f"image_encoder is {width}: name the encoder that it was trained with"
        )


def width_of_encoder(folder: Path, reads: Reads) -> int:
    """Return how many values an image encoder gives of an image. Raises as `read_image_encoder`."""
    name, usual = _EMBEDDING if reads == "embedding" else _STATES
    width = read_image_encoder(folder).get(name, usual)
    if not isinstance(width, int):
        raise CatalogueError(f"the {name} of the image encoder is not a number")
    return width


def _width_name(reads: Reads) -> str:
    return (_EMBEDDING if reads == "embedding" else _STATES)[0]


def read_image_encoder(folder: Path) -> Mapping[str, Any]:
    """Return the configuration of an image encoder.

    Raises:
        CatalogueError: the folder holds another kind of model, or no weights.
    """
    config = read_config(folder)
    named = next(iter(config.get("architectures") or []), None)
    if config.get("model_type") != "clip_vision_model" or named not in (None, _MODEL):
        shown = named or config.get("model_type") or "folder without config.json"
        raise CatalogueError(f"its image_encoder is a {str(shown)[:80]}, and a {_MODEL} is needed")
    if not (folder / "model.safetensors").is_file():
        raise CatalogueError("its image_encoder has no model.safetensors")
    return config


def find_ip_adapter_facts(catalogue: Catalogue, row: IpAdapterSpec) -> IpAdapterFacts | None:
    """What a row's file says; None where it is not on this machine, or cannot be used."""
    try:
        return _facts(catalogue, row, None)
    except (AdapterRefused, CatalogueError, OSError):
        return None


def _facts(catalogue: Catalogue, row: IpAdapterSpec, path: Path | None) -> IpAdapterFacts | None:
    place = path or catalogue.place(row)
    if isinstance(place, HubSource):
        cached = find_cached(catalogue, row)
        return None if cached is None else read_ip_adapter(cached.paths[0])
    if place.is_dir():
        raise CatalogueError("an IP-Adapter must be a .safetensors file; name one of the folder with `file`")
    return read_ip_adapter(place)
