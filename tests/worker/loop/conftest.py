"""The loop's tests run on few models: each start of a consumer rehearses all rows of its catalogue."""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import Catalogue
from worker.pool.pool import Pool


@pytest.fixture(scope="session")
def catalogue(smaller_models: Catalogue) -> Catalogue:
    """No models of other families."""
    return smaller_models


@pytest.fixture(scope="session")
def pool(catalogue: Catalogue) -> Pool:
    """One pool for all tests of the loop, of SDXL and FLUX; a test that spoils it is one that found something."""
    models = tuple(row for row in catalogue.models if row.family in ("sdxl", "flux"))
    return Pool(catalogue.model_copy(update={"models": models, "controlnets": ()}), device="cpu")
