"""Families whose trained checkpoints most tests use; `untrained/` has small ones of others."""

from __future__ import annotations

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES

TRAINED_FAMILIES = {family: FAMILIES[family] for family in ("sdxl", "sd3", "flux")}


def only_trained_families(catalogue: Catalogue) -> Catalogue:
    """The catalogue with the first model of each of these families, and the ControlNets and adapters for them."""
    rows = {
        kind: tuple(row for row in getattr(catalogue, kind) if row.family in TRAINED_FAMILIES)
        for kind in ("models", "controlnets", "loras", "ip_adapters")
    }
    first = {row.family: row.id for row in reversed(rows["models"])}
    rows["models"] = tuple(row for row in rows["models"] if row.id in first.values())
    return catalogue.model_copy(update=rows)
