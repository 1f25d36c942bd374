"""Sizes of what is still on a hub, and of what came from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.catalogue.cached import select_files
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused, HubUnavailable
from contracts.hub.snapshot import fetch
from contracts.hub.source import HubSource
from contracts.memory.sizes.component import Component, ModelComponents
from contracts.memory.sizes.extras import size_adapter, size_controlnet
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.on_hub import read_hub_components, size_hub_extra
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import (
    MODELS,
    checkpoint,
    controlnet,
    in_shards,
    loras,
    sketch,
    with_clutter,
    with_variant,
)

LOCAL = Catalogue(
    root=MODELS,
    default_model="m",
    models=(ModelSpec(id="m", family="sdxl", source="shapes-sdxl"),),
    controlnets=(ControlNetSpec(id="n", family="sdxl", source="controlnets/shapes-sdxl-silhouette"),),
    loras=(LoraSpec(id="l", family="sdxl", source="loras/shapes-sdxl-tint.safetensors"),),
)
REMOTE = LOCAL.model_copy(
    update={
        "models": (ModelSpec(id="m", family="sdxl", source="org/sdxl"),),
        "controlnets": (ControlNetSpec(id="n", family="sdxl", source="org/net"),),
        "loras": (LoraSpec(id="l", family="sdxl", source="org/lora"),),
    }
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/sdxl", with_clutter(in_shards(with_variant(checkpoint(), parts=["vae"]), "unet")))
        hub.commit("org/net", controlnet())
        hub.commit("org/lora", loras("tint"))
        yield hub


def _local(value_bytes: int = 2) -> ModelComponents:
    model = read_components(LOCAL, LOCAL.model("m"), value_bytes)
    assert model is not None
    return model


def _plain(model: ModelComponents | None) -> dict[str, Component]:
    """The components without what their sizes were read from."""
    assert model is not None
    return {part.name: replace(part, origin="files") for part in model.components}


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_model_on_a_hub_has_the_sizes_of_its_files_and_only_their_headers_are_read(
    hub: Hub, variant: str | None
) -> None:
    row = REMOTE.model("m").model_copy(update={"variant": variant})
    model = read_hub_components(REMOTE, row, 2)
    assert model is not None
    assert model.origin == "hub"
    assert _plain(model) == _plain(_local())
    fetched = hub.fetched("org/sdxl")
    size = sum(len(file.content) for name, file in hub.files("org/sdxl").items() if name in fetched)
    assert sum(fetched.values()) < size / 4
    assert not any(name.endswith((".bin", ".onnx")) for name in fetched)


def test_a_controlnet_and_a_lora_on_a_hub_have_the_sizes_of_their_files(hub: Hub) -> None:
    for on_hub, local in (
        (size_hub_extra(REMOTE, REMOTE.controlnet("n"), 2), size_controlnet(LOCAL, "n", 2)),
        (size_hub_extra(REMOTE, REMOTE.lora("l"), 2), size_adapter(LOCAL, "l", 2)),
    ):
        assert on_hub is not None
        assert local is not None
        assert on_hub == replace(local, origin="hub")


def test_what_came_from_a_hub_is_sized_by_its_files_without_the_hub(hub: Hub) -> None:
    assert read_components(REMOTE, REMOTE.model("m"), 2) != _local()
    for row in (REMOTE.model("m"), REMOTE.controlnet("n"), REMOTE.lora("l")):
        source = REMOTE.place(row)
        assert isinstance(source, HubSource)
        fetch(source, select_files(row, source))
    hub.stop()
    model = read_components(REMOTE, REMOTE.model("m"), 2)
    assert model is not None
    assert (model.origin, _plain(model)) == ("files", _plain(_local()))
    assert size_controlnet(REMOTE, "n", 2) == size_controlnet(LOCAL, "n", 2)
    assert size_adapter(REMOTE, "l", 2) == size_adapter(LOCAL, "l", 2)


def test_a_row_on_this_machine_is_not_asked_for(hub: Hub) -> None:
    assert read_hub_components(LOCAL, LOCAL.model("m"), 2) is None
    assert size_hub_extra(LOCAL, LOCAL.lora("l"), 2) is None
    assert hub.requests == []


def test_why_a_size_is_not_known_is_told(hub: Hub) -> None:
    hub.commit("org/sdxl", sketch(checkpoint()))
    with pytest.raises(CatalogueError, match=r"\.safetensors .*safetensors"):
        read_hub_components(REMOTE, REMOTE.model("m"), 2)
    missing = REMOTE.model("m").model_copy(update={"source": "org/nothing"})
    with pytest.raises(HubRefused, match="org/nothing does not exist"):
        read_hub_components(REMOTE, missing, 2)
    hub.stop()
    with pytest.raises(HubUnavailable):
        read_hub_components(REMOTE, REMOTE.model("m"), 2)
