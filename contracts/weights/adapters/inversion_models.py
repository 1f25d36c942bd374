"""The models of the catalogue that a textual inversion suits, by the widths of text encoders. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, TextualInversionSpec
from contracts.catalogue.families import FAMILIES, Family
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.hub.source import HubSource
from contracts.weights.adapters.inversion_files import InversionFacts, read_inversion
from contracts.weights.configs import read_config


def find_family(facts: InversionFacts, catalogue: Catalogue, family: str | None = None) -> tuple[str, list[str]]:
    """Find the family that a file is for, and those of its models that it suits.

    Args:
        family: that the client named; None: the first of the catalogue's families that it suits.

    Returns:
        Without any model where none of the family's encoders can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    named = [FAMILIES[family]] if family is not None else _by_models(catalogue)
    families = [row for row in named if set(row.inversion_encoders.values()) == set(facts.widths)]
    if not families:
        has = " and ".join(facts.widths)
        able = ", ".join(row.id for row in FAMILIES.values() if row.inversion_encoders) if family else ""
        raise AdapterRefused(
            f"it has vectors for {has}; "
            + (
                f"{family} takes others (families that take any: {able})"
                if family
                else "no model here takes those"
            )
        )
    reasons, unread = [], None
    for row in families:
        suited = []
        for model in (model for model in catalogue.models if model.family == row.id):
            widths = _widths(model, row, catalogue)
            if widths is None:
                unread = unread or row.id
            elif widths == facts.widths:
                suited.append(model.id)
            else:
                reasons.append(f"{model.id} reads vectors of {_listed(widths)} values")
        if suited:
            return row.id, suited
    if unread is not None:
        return unread, []
    reason = next(iter(reasons), f"the catalogue has no model of family {families[0].id}")
    raise AdapterRefused(f"its vectors have {_listed(facts.widths)} values, and {reason}")


def find_inversion_facts(catalogue: Catalogue, row: TextualInversionSpec) -> InversionFacts | None:
    """What a row's file says; None where it is not on this machine, or cannot be used."""
    try:
        place = catalogue.place(row)
        if isinstance(place, HubSource):
            cached = find_cached(catalogue, row)
            return None if cached is None else read_inversion(cached.paths[0])
        return read_inversion(_file_in(place))
    except (AdapterRefused, CatalogueError, OSError):
        return None


def check_inversion_row(catalogue: Catalogue, row: TextualInversionSpec) -> None:
    """Check the file of a row on this machine; raises AdapterRefused and CatalogueError."""
    place = catalogue.place(row)
    if not isinstance(place, HubSource):
        facts = read_inversion(_file_in(place))
        if set(facts.widths) != set(row.family_spec.inversion_encoders.values()):
            needed = " and ".join(row.family_spec.inversion_encoders.values())
            raise CatalogueError(f"it has vectors for {' and '.join(facts.widths)}; {row.family} needs {needed}")


def _file_in(place: Path) -> Path:
    files = sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]
    if len(files) != 1:
        raise CatalogueError(f"the folder has {len(files)} .safetensors files; name one of them with `file`")
    return files[0]


def _by_models(catalogue: Catalogue) -> list[Family]:
    """The catalogue's families; of two with encoders of the same width, inversions are usually made for SD 1."""
    found = {model.family: FAMILIES[model.family] for model in catalogue.models}
    return sorted(found.values(), key=lambda family: family.kind != "diffusion")


def _widths(model: ModelSpec, family: Family, catalogue: Catalogue) -> Mapping[str, int] | None:
    """Part -> width of that encoder's vectors; None where they cannot be read here."""
    try:
        place = catalogue.place(model)
        cached = find_cached(catalogue, model) if isinstance(place, HubSource) else None
        folder = cached.folder if cached is not None else place
        if isinstance(folder, Path) and folder.is_file() and model.config is not None:
            folder = catalogue.locate(model.config)
        if not isinstance(folder, Path) or not folder.is_dir():
            return None
        found = {
            part: read_config(folder / name).get("hidden_size") for name, part in family.inversion_encoders.items()
        }
    except CatalogueError:
        return None
    widths = {part: width for part, width in found.items() if isinstance(width, int)}
    return widths if widths.keys() == found.keys() else None


def _listed(widths: Mapping[str, int]) -> str:
    return " and ".join(map(str, widths.values()))
