"""The loop's tests run on few models: each start of a consumer rehearses all rows of its catalogue."""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from worker.pool.pool import Pool


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The built-in models, LoRAs and ControlNets."""
    return read_catalogue(BUILT_IN_CATALOGUE)


@pytest.fixture(scope="session")
def pool(catalogue: Catalogue) -> Pool:
    """One pool for all tests of the loop, of SDXL and FLUX; a test that spoils it is one that found something."""
    models = tuple(row for row in catalogue.models if row.family in ("sdxl", "flux"))
    return Pool(catalogue.model_copy(update={"models": models, "controlnets": ()}), device="cpu")
