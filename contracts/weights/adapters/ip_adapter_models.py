"""The models that an IP-Adapter suits, and the image encoder that gives what it reads, by headers alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.weights.adapters.ip_adapter_files import IpAdapterFacts
from contracts.weights.adapters.ip_adapter_rows import width_of_encoder
from contracts.weights.denoiser_files import Layers, find_suited_models

#: Ends of the names of layers that read the prompt: cross-attention's of a UNet, and FLUX's one layer before all.
_ATTENTION, _EMBEDDER = ".attn2.to_k.weight", "context_embedder.weight"


def find_models(facts: IpAdapterFacts, catalogue: Catalogue) -> tuple[str, list[str]]:
    """Find the family that a file is for, and those of its models that it suits.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    is_redux = facts.kind == "redux"
    families = (row for row in FAMILIES.values() if any("ip_adapters" in used for used in row.modes.values()))
    return find_suited_models(
        (row for row in families if row.image_tokens_follow_prompt == is_redux),
        catalogue,
        may_suit=lambda family: not family.context_widths or facts.width in family.context_widths,
        misfit=partial(_misfit, facts),
        ending=_EMBEDDER if is_redux else _ATTENTION,
        no_family="the catalogue has no model of a family that IP-Adapters are for",
    )


def find_image_encoder(facts: IpAdapterFacts, catalogue: Catalogue, wanted: str | None = None) -> str:
    """Return the operator's image encoder that gives what a file reads of an image.

    Args:
        wanted: its name, where the client chose one; None: the first that fits.

    Raises:
        AdapterRefused: none does.
    """
    known = encoders_of(catalogue)
    if wanted is not None and wanted not in known:
        raise AdapterRefused(f"unknown image encoder {wanted[:80]!r}; known: {', '.join(known) or 'none'}")
    widths: dict[str, int] = {}
    for name, source in known.items():
        if wanted in (None, name):
            try:
                widths[name] = width_of_encoder(catalogue.image_encoder(source), facts.reads)
            except CatalogueError:
                continue
    fitting = next((name for name, width in widths.items() if width == facts.image_width), None)
    if fitting is None:
        given = ", ".join(f"{name} gives {width}" for name, width in widths.items()) or "there is none"
        raise AdapterRefused(
            f"it reads {facts.image_width} values of an image, and no image encoder here gives that ({given}): "
            "the operator adds encoders in `image_encoders` of the catalogue file"
        )
    return known[fitting]


def encoders_of(catalogue: Catalogue) -> dict[str, str]:
    """Return name -> source of the operator's image encoders; the name is that of the folder."""
    sources = (*(row.image_encoder for row in catalogue.ip_adapters), *catalogue.image_encoders)
    known: dict[str, str] = {}
    for source in sources:
        known.setdefault(Path(source).name, source)
    return known


def _misfit(facts: IpAdapterFacts, layers: Layers, model: ModelSpec) -> str | None:
    shapes = list(layers.values())
    widths = sorted({shape[1] for shape in shapes})
    if widths != [facts.width]:
        read = ", ".join(map(str, widths))
        return f"its tokens have {facts.width} values, and the layers of {model.id} read {read}"
    if facts.kind == "redux":
        return None
    if len(layers) != facts.layers or 2 * sum(shape[0] for shape in shapes) != facts.key_values:
        return (
            f"it has {facts.layers} cross-attention layers, and {model.id} has {len(layers)}, or of other widths"
        )
    return None
