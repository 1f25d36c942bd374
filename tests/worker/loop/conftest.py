"""The loop's tests run on the built-in models: each start of a consumer rehearses all rows of its catalogue."""

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
    """One pool for all tests of the loop; a test that spoils it is a test that found something."""
    return Pool(catalogue, device="cpu")
