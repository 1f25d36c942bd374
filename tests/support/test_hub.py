"""Tests for the stand-in hub: the real client gets from it what it gets from the real hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_http import Fault
from tests.support.hub_repositories import checkpoint, sketch

FILES = sketch(checkpoint())
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, used by this process."""
    with serving() as hub:
        hub.commit("org/model", FILES)
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_a_snapshot_has_every_file_and_each_was_sent_once(hub: Hub) -> None:
    folder = Path(snapshot_download("org/model"))
    sizes = {name: len(file.content) for name, file in hub.files("org/model").items()}
    assert {name: (folder / name).stat().st_size for name in sizes} == sizes == hub.fetched("org/model")
    assert folder.name == hub.head("org/model")


def test_a_moved_branch_leaves_its_earlier_commits_available(hub: Hub) -> None:
    first = hub.head("org/model")
    second = hub.commit("org/model", FILES | {WEIGHTS: b"newer weights"})
    api = HfApi()
    assert (api.model_info("org/model").sha, api.model_info("org/model", revision=first).sha) == (second, first)
    places = [hf_hub_download("org/model", WEIGHTS, revision=revision) for revision in (first, "main")]
    assert [Path(place).read_bytes() == b"newer weights" for place in places] == [False, True]


def test_trees_and_paths_have_sizes_and_hashes(hub: Hub) -> None:
    file = hub.files("org/model")[WEIGHTS]
    listed = {entry.path for entry in HfApi().list_repo_tree("org/model", recursive=True)}
    assert listed == FILES.keys()
    (entry,) = HfApi().get_paths_info("org/model", [WEIGHTS])
    assert isinstance(entry, RepoFile)
    assert entry.lfs is not None
    assert (entry.size, entry.lfs.sha256) == (len(file.content), file.sha256)
    assert {entry.path for entry in HfApi().list_repo_tree("org/model", "unet")} == {"unet/config.json", WEIGHTS}


def test_what_is_missing_or_gated_is_refused_as_on_the_real_hub(hub: Hub) -> None:
    hub.gates["org/model"] = "hf_right"
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("org/other")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info("org/model", revision="v9")
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/model", WEIGHTS)
    assert Path(hf_hub_download("org/model", WEIGHTS, token="hf_right")).is_file()


def test_ranges_faults_and_stops_are_real(hub: Hub) -> None:
    url = f"{hub.url}/org/model/resolve/main/{WEIGHTS}"
    content = hub.files("org/model")[WEIGHTS].content
    answer = httpx.get(url, headers={"Range": "bytes=10-19"}, trust_env=False)
    assert (answer.status_code, answer.content) == (206, content[10:20])
    hub.faults = [Fault(path="safetensors", cut_bytes=100)]
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url, trust_env=False)
    hub.faults = [Fault(status=503, retry_after_seconds=7)]
    answer = httpx.get(url, trust_env=False)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    hub.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    hub.start()
    assert httpx.get(f"{hub.url}/api/models/org/model", trust_env=False).status_code == 503
