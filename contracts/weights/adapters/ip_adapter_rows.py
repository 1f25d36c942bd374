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
from contracts.weights.configs import read_config

_CLIP = ("clip_vision_model", "CLIPVisionModelWithProjection")
#: What is read of an image encoder -> its `model_type`, its class, and the entry of its width with transformers'
#: default, since a configuration may leave it out.
_KINDS: Mapping[Reads, tuple[str, str, str, int]] = {
    "embedding": (*_CLIP, "projection_dim", 512),
    "states": (*_CLIP, "hidden_size", 768),
    "patches": ("siglip_vision_model", "SiglipVisionModel", "hidden_size", 768),
}
#: transformers' defaults of SigLIP's sides, in pixels.
_SIDES = (("image_size", 224), ("patch_size", 16))
_MAX_PATCHES = 4096


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
    appends = row.family_spec.image_tokens_follow_prompt
    if facts is not None and (facts.kind == "redux") != appends:
        raise CatalogueError(f"it is of the kind {facts.kind}, which models of family {row.family} cannot use")
    reads: Reads = ("patches" if appends else "embedding") if facts is None else facts.reads
    width = width_of_encoder(catalogue.image_encoder(row.image_encoder), reads)
    if facts is not None and width != facts.image_width:
        raise CatalogueError(
            f"the IP-Adapter reads {facts.image_width} values of an image, and the {_KINDS[reads][2]} of its "
            f"image_encoder is {width}: name the encoder that it was trained with"
        )


def width_of_encoder(folder: Path, reads: Reads) -> int:
    """Return how many values an image encoder gives of an image or patch. Raises as `read_image_encoder`."""
    _, _, name, usual = _KINDS[reads]
    return _number(read_image_encoder(folder, reads), name, usual)


def patches_of_encoder(folder: Path) -> int:
    """Return how many patches a SigLIP encoder sees of an image; 0 for another encoder.

    Raises:
        CatalogueError: as `read_image_encoder`.
    """
    config = read_config(folder)
    if config.get("model_type") != _KINDS["patches"][0]:
        return 0
    side, patch = (_number(config, name, usual) for name, usual in _SIDES)
    if not 0 < patch <= side or (side // patch) ** 2 > _MAX_PATCHES:
        raise CatalogueError(
            f"the image encoder sees {side} × {side} pixels in patches of {patch} × {patch}; "
            f"1 to {_MAX_PATCHES} patches are allowed"
        )
    return (side // patch) ** 2


def _number(config: Mapping[str, Any], name: str, usual: int) -> int:
    value = config.get(name, usual)
    if not isinstance(value, int):
        raise CatalogueError(f"the {name} of the image encoder is not a number")
    return value


def read_image_encoder(folder: Path, reads: Reads) -> Mapping[str, Any]:
    """Return the configuration of an image encoder.

    Args:
        reads: what an IP-Adapter needs of it.

    Raises:
        CatalogueError: the folder holds another kind of model, or no weights.
    """
    model_type, needed, _, _ = _KINDS[reads]
    config = read_config(folder)
    named = next(iter(config.get("architectures") or []), None)
    if config.get("model_type") != model_type or named not in (None, needed):
        shown = named or config.get("model_type") or "folder without config.json"
        raise CatalogueError(f"its image_encoder is a {str(shown)[:80]}, and a {needed} is needed")
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
