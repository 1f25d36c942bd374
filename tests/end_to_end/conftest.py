"""One service for the whole run of these tests; tests that break a service start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.cascade import CASCADE, write_stage_ii
from tests.support.combinations import ALL
from tests.support.running_service import RunningService
from tests.support.untrained import UNTRAINED


@pytest.fixture(scope="session")
def catalogue_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue file with the built-in rows, and a small untrained checkpoint `tiny-…` of two other families.

    One of them is DeepFloyd IF, with its stage II. In `make judge` of each other family: a worker reads all rows
    as it starts.
    """
    folder = tmp_path_factory.mktemp("catalogue")
    for item in BUILT_IN_CATALOGUE.parent.iterdir():
        if item.is_dir():
            (folder / item.name).symlink_to(item)
    rows = [BUILT_IN_CATALOGUE.read_text(encoding="utf-8")]
    families = {f"tiny-{family}": family for family in (UNTRAINED if ALL else ("pixart", "deepfloyd"))}
    for id, family in families.items():
        UNTRAINED[family].pipeline().save_pretrained(folder / id)
    write_stage_ii(folder / CASCADE)
    for id, family in {**families, CASCADE: "deepfloyd"}.items():
        rows.append(f'[[models]]\nid = "{id}"\nfamily = "{family}"\nsource = "{id}"\n')
    catalogue = folder / "catalogue.toml"
    catalogue.write_text("\n".join(rows), encoding="utf-8")
    return catalogue


@pytest.fixture(scope="session")
def service(catalogue_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` with one worker, and models of several families."""
    environment = {
        "DARKROOM_CATALOGUE": str(catalogue_file),
        "DARKROOM_OUTBOUND_NETWORKS": '["127.0.0.0/8"]',
        "DARKROOM_API_DISCONNECT_GRACE_SECONDS": "1",
    }
    running = RunningService(tmp_path_factory.mktemp("service") / "data", environment=environment, forked=True)
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]
