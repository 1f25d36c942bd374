"""Families that have a trained checkpoint in `models/`; `untrained.py` makes small ones of the others."""

from __future__ import annotations

from contracts.catalogue.families import FAMILIES

TRAINED_FAMILIES = {family: FAMILIES[family] for family in ("sdxl", "sd3", "flux")}
