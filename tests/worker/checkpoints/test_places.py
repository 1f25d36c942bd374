"""Places of files: found without a connection, fetched once, remembered, and noticed when they are gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.errors import CatalogueError, NotFound, Unavailable
from contracts.hub.source import HubSource
from contracts.hub_revisions import Revisions
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import loras
from worker.checkpoints.places import NotPrepared, Places, Unwatched


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one LoRA, and an empty cache."""
    with serving() as hub:
        hub.commit("org/tint", loras("tint"))
        use_hub(monkeypatch, hub, tmp_path / "hub")
        yield hub


@pytest.fixture
def mixed(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """A LoRA and a ControlNet on the hub, a LoRA that is nowhere, and the models on this machine."""
    return catalogue.model_copy(
        update={
            "loras": (
                LoraSpec(id="tint", family="sdxl", source="org/tint"),
                LoraSpec(id="lost", family="sdxl", source=str(tmp_path / "lost.safetensors")),
            ),
            "controlnets": (ControlNetSpec(id="lines", family="sdxl", source="org/lines"),),
        }
    )


def test_what_is_on_a_hub_is_fetched_once_and_remembered_until_it_is_gone(
    hub: Hub, mixed: Catalogue, tmp_path: Path
) -> None:
    places = Places(mixed)
    with pytest.raises(NotPrepared, match="lora:tint"):
        places.locate("lora:tint")
    assert hub.requests == []
    path = places.fetch("lora:tint", Unwatched())
    asked = len(hub.requests)
    assert places.locate("lora:tint") == path == Places(mixed).locate("lora:tint")
    assert places.fetch("lora:tint", Unwatched()) == path
    assert len(hub.requests) == asked
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(NotPrepared):
        places.locate("lora:tint")


def test_a_row_that_is_nowhere_or_gone_is_not_waited_for(hub: Hub, mixed: Catalogue) -> None:
    places = Places(mixed)
    for name, error in (("lora:lost", CatalogueError), ("lora:unheard-of", NotFound)):
        assert places.is_here(name)  # preparing it says why it cannot be used
        with pytest.raises(error):
            places.locate(name)
    assert not places.is_here("lora:tint")
    assert hub.requests == []


def test_the_names_that_are_here_are_told_without_asking_a_hub(hub: Hub, mixed: Catalogue) -> None:
    places = Places(mixed)
    models = {model.id for model in mixed.models} | {
        name for name in mixed.rows_by_need if name.startswith(("ip_adapter:", "upscaler:", "eraser:"))
    }
    assert set(places.names_here()) == models
    assert hub.requests == []
    places.fetch("lora:tint", Unwatched())
    assert set(places.names_here()) == {*models, "lora:tint"}


def test_a_redis_that_is_away_is_asked_once_and_not_for_each_name(hub: Hub, mixed: Catalogue) -> None:
    asked = []

    class Away(Revisions):
        def known(self, source: HubSource) -> str | None:
            asked.append(source)
            raise Unavailable("Redis does not answer")

    places = Places(mixed, Away())
    assert set(places.names_here()) == {model.id for model in mixed.models}
    assert len(asked) == 1
