"""What the tests of the whole tables share: a small model of everything that the catalogue may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue
from tests.support.cascade import with_cascade_row
from tests.support.ip_adapters import with_ip_adapters
from tests.support.refiner import with_refiner_row
from tests.support.untrained.pixart import with_pixart_alpha


@pytest.fixture(scope="session")
def every_model(
    flux_tools: Catalogue, weights_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Catalogue:
    """A small checkpoint of each family and of its other ones, with IP-Adapters for those that take them."""
    with_alpha = with_pixart_alpha(flux_tools, weights_folder)
    refined = with_refiner_row(with_alpha, tmp_path_factory.mktemp("refiner"))
    refined = with_cascade_row(refined, tmp_path_factory.mktemp("cascade"))
    return with_ip_adapters(refined, weights_folder / "ip-adapters")
