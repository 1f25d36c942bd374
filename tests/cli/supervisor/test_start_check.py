"""What `darkroom up` and `darkroom check` look at before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from cli.supervisor.start_check import check_catalogue
from cli.supervisor.up import Service
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_http import Fault
from tests.support.hub_repositories import checkpoint, controlnet, loras, sketch

CATALOGUE = """
default_model = "sdxl"
[[models]]
id = "sdxl"
family = "sdxl"
source = "org/model"
[[controlnets]]
id = "silhouette"
family = "sdxl"
source = "org/controlnet"
[[loras]]
id = "tint"
family = "sdxl"
source = "org/loras/shapes-sdxl-tint.safetensors"
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a repository of each kind, which the catalogue names."""
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, encoding="utf-8")
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(tmp_path / "catalogue.toml"))
    with serving() as hub:
        hub.commit("org/model", sketch(checkpoint()))
        hub.commit("org/controlnet", sketch(controlnet()))
        hub.commit("org/loras", sketch(loras("tint", "stripes")))
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_a_start_asks_for_each_repository_and_reads_only_the_beginning_of_a_file(hub: Hub, tmp_path: Path) -> None:
    assert check_catalogue().default_model == "sdxl"
    fetched = {name: list(hub.fetched(f"org/{name}")) for name in ("model", "controlnet", "loras")}
    assert fetched == {
        "model": ["model_index.json"],
        "controlnet": ["config.json"],
        "loras": ["shapes-sdxl-tint.safetensors"],
    }
    assert sum(sum(hub.fetched(f"org/{name}").values()) for name in fetched) < 10_000
    assert not (tmp_path / "home").exists()


def test_rows_whose_repository_revision_or_file_is_missing_or_gated_are_told_by_name(
    hub: Hub, tmp_path: Path
) -> None:
    hub.gates["org/model"] = "hf_other"
    rows = CATALOGUE.replace("org/controlnet", "org/nothing").replace("tint.safe", "tent.safe")
    rows += '[[loras]]\nid = "which"\nfamily = "sdxl"\nsource = "org/loras"\n'
    rows += '[[loras]]\nid = "old"\nfamily = "sdxl"\nsource = "org/loras"\nrevision = "v9"\n'
    (tmp_path / "catalogue.toml").write_text(rows, encoding="utf-8")
    with pytest.raises(RuntimeError) as refused:
        check_catalogue()
    told = str(refused.value)
    assert "sdxl: org/model is gated: accept its terms on the hub and set HF_TOKEN for the worker" in told
    assert "silhouette: org/nothing does not exist" in told
    assert "tint: org/loras has no file shapes-sdxl-tent.safetensors" in told
    assert "old: org/loras has no revision v9" in told
    assert "which: org/loras has several .safetensors files" in told
    assert "\n" not in told


def test_a_token_opens_a_gate(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gates["org/model"] = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    check_catalogue()


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(status=429), Fault(cut_bytes=10), Fault(is_silent=True), None]
)
def test_a_hub_that_does_not_answer_is_no_reason_not_to_start(
    hub: Hub, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")
    if fault is None:
        hub.stop()
    else:
        hub.faults = [fault]
    check_catalogue()


def test_nothing_is_asked_about_what_is_in_the_cache(hub: Hub) -> None:
    for repository in ("org/model", "org/controlnet", "org/loras"):
        snapshot_download(repository)
    hub.gates["org/model"] = "hf_other"
    asked = len(hub.requests)
    check_catalogue()
    assert len(hub.requests) == asked


def test_an_invalid_catalogue_ends_the_start(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE.replace("sdxl", "sd0"), encoding="utf-8")
    with pytest.raises(RuntimeError, match="unknown family 'sd0'"):
        check_catalogue()
    assert hub.requests == []


def test_a_service_whose_model_is_missing_or_gated_is_not_started(hub: Hub, tmp_path: Path) -> None:
    hub.gates["org/model"] = "hf_other"
    with pytest.raises(RuntimeError, match=r"^\S+:6: sdxl: org/model is gated: [^;]*$"):
        Service("127.0.0.1", 0, tmp_path / "data", workers=1, fsync="everysec")
    assert not (tmp_path / "data").exists()
