"""Files come from a hub once, whole and undamaged; what goes wrong is told in a sentence."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from contracts.hub.errors import Cancelled, HubRefused, HubUnavailable
from contracts.hub.selection import lora_file, model_files, one_file
from contracts.hub.snapshot import Snapshot, fetch, find_damage, find_snapshot, resolve_commit
from contracts.hub.source import HubSource
from tests.support.forked_text import running
from tests.support.hub import Hub
from tests.support.hub_http import Fault
from tests.support.hub_repositories import checkpoint, sketch, with_clutter, with_variant

SDXL = model_files("StableDiffusionXLPipeline")
LORA = HubSource("org/lora", None, "a.safetensors")
WEIGHTS = bytes(range(256)) * 8192


def get(source: HubSource = LORA, **options: object) -> Snapshot:
    select = lora_file(source.file) if source.repository == LORA.repository else SDXL
    return fetch(source, select, **options)  # type: ignore[arg-type]


@pytest.fixture
def lora(hub: Hub) -> str:
    """A repository with one file of 2 MiB; returns the commit."""
    return hub.commit(LORA.repository, {"a.safetensors": WEIGHTS})


def blob(snapshot: Snapshot) -> Path:
    return snapshot.paths[0].resolve()


def sent(hub: Hub) -> int:
    return hub.fetched(LORA.repository).get("a.safetensors", 0)


def test_exactly_the_files_that_are_needed_are_fetched_once(hub: Hub) -> None:
    source = HubSource("org/sdxl")
    hub.commit(source.repository, sketch(with_clutter(with_variant(checkpoint()))))
    assert find_snapshot(source, SDXL) is None
    progress: list[tuple[int, int]] = []
    snapshot = get(source, on_progress=lambda done, total: progress.append((done, total)))
    fetched = hub.fetched(source.repository)
    assert fetched == {name: len(hub.files(source.repository)[name].content) for name in snapshot.files}
    assert not any(name.endswith((".bin", ".onnx", ".msgpack", ".png")) or "fp16" in name for name in fetched)
    # What is read to find out what is needed has come before.
    total = sum(fetched.values()) - fetched["model_index.json"]
    assert progress[-1] == (total, total)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert find_snapshot(source, SDXL) == snapshot
    count = len(hub.requests)
    assert get(source, revision=snapshot.commit) == snapshot
    assert len(hub.requests) == count


def test_another_row_of_the_same_repository_fetches_only_what_it_needs_besides(hub: Hub) -> None:
    source = HubSource("org/sdxl")
    hub.commit(source.repository, sketch(with_variant(checkpoint(), parts=["unet"])))
    first = get(source)
    half = model_files("StableDiffusionXLPipeline", "fp16")
    assert find_snapshot(source, half) is None
    second = fetch(source, half)
    assert set(second.files) - set(first.files) == {"unet/diffusion_pytorch_model.fp16.safetensors"}
    assert all(size == len(hub.files("org/sdxl")[name].content) for name, size in hub.fetched("org/sdxl").items())


def test_a_repository_of_another_class_is_refused_before_any_weight_is_fetched(hub: Hub) -> None:
    hub.commit("org/sdxl", sketch(checkpoint()))
    with pytest.raises(
        HubRefused, match="is a StableDiffusionXLPipeline, and the row's family needs a FluxPipeline"
    ):
        fetch(HubSource("org/sdxl"), model_files("FluxPipeline"))
    assert list(hub.fetched("org/sdxl")) == ["model_index.json"]


def test_what_is_in_the_cache_is_found_without_the_hub_and_offline(
    hub: Hub, lora: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = get()
    hub.stop()
    assert find_snapshot(LORA, lora_file("a.safetensors")) == snapshot
    assert get(revision=lora) == snapshot
    assert get(HubSource(LORA.repository, lora, LORA.file)) == snapshot
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert get() == snapshot
    assert resolve_commit(LORA.repository) == lora
    for missing in (HubSource("org/other"), HubSource(LORA.repository, "v2", LORA.file)):
        with pytest.raises(HubRefused, match="is not in the hub's cache, and nothing may be fetched"):
            get(missing)


def test_a_branch_that_moved_is_another_snapshot_and_a_commit_never_moves(hub: Hub, lora: str) -> None:
    first = get()
    second_commit = hub.commit(LORA.repository, {"a.safetensors": b"other weights"})
    assert resolve_commit(LORA.repository, "main") == second_commit
    assert get().paths[0].read_bytes() == b"other weights"
    assert get(revision=lora) == first
    assert first.paths[0].read_bytes() == WEIGHTS


def test_a_download_that_broke_off_is_resumed(hub: Hub, lora: str) -> None:
    hub.faults = [Fault(path="/resolve/", cut_bytes=700_000)]
    with pytest.raises(HubUnavailable, match="the connection to the hub broke while org/lora was fetched"):
        get()
    assert find_snapshot(LORA, lora_file()) is None
    hub.faults = []
    assert get().paths[0].read_bytes() == WEIGHTS
    assert sent(hub) == len(WEIGHTS)


def test_a_download_stops_when_nobody_wants_it_and_is_resumed_when_somebody_does(hub: Hub, lora: str) -> None:
    done: list[int] = []
    with pytest.raises(Cancelled):
        get(on_progress=lambda part, _: done.append(part), is_wanted=lambda: not done)
    assert get().paths[0].read_bytes() == WEIGHTS
    (rest,) = [request.sent_bytes for request in hub.requests if request.status == 206]
    assert rest < len(WEIGHTS)


def test_a_file_that_arrives_damaged_is_fetched_again_and_never_seen(hub: Hub, lora: str) -> None:
    hub.faults = [Fault(path="/resolve/", flips=True)]
    with pytest.raises(HubUnavailable, match=r"a\.safetensors of org/lora arrived damaged twice"):
        get()
    assert find_snapshot(LORA, lora_file()) is None
    hub.faults = []
    assert get().paths[0].read_bytes() == WEIGHTS


@pytest.mark.parametrize("left", [b"what another process left", WEIGHTS + b"more", WEIGHTS])
def test_whatever_an_interrupted_download_left_is_completed_or_replaced(hub: Hub, lora: str, left: bytes) -> None:
    snapshot = get()
    file = blob(snapshot)
    file.unlink()
    file.with_name(f"{file.name}.incomplete").write_bytes(left)
    assert get().paths[0].read_bytes() == WEIGHTS
    assert not list(file.parent.glob("*.incomplete"))


def test_what_nobody_will_resume_is_swept_unless_somebody_is_at_it(hub: Hub, lora: str, home: Path) -> None:
    snapshot = get()
    blobs, locks = blob(snapshot).parent, home / "hub" / ".locks" / "models--org--lora"
    abandoned, current = (blobs / f"{letter * 64}.incomplete" for letter in "ab")
    strangers = blobs / f"{'c' * 64}.1234abcd.incomplete"  # as huggingface_hub names them
    other = home / "hub" / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    old, recent = other / f"{'d' * 64}.incomplete", other / f"{'e' * 64}.incomplete"
    for file in (abandoned, current, strangers, old, recent):
        file.write_bytes(b"part")
    os.utime(old, (1, 1))
    with (locks / f"{'b' * 64}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        get()
    assert sorted((home / "hub").rglob("*.incomplete")) == sorted([current, recent])


def test_what_another_row_of_the_repository_will_resume_is_not_swept(hub: Hub) -> None:
    hub.commit(LORA.repository, {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS[::-1]})
    hub.faults = [Fault(path="b.safetensors", cut_bytes=700_000)]
    other = HubSource(LORA.repository, None, "b.safetensors")
    with pytest.raises(HubUnavailable):
        get(other)
    hub.faults = []
    get()
    assert get(other).paths[0].read_bytes() == WEIGHTS[::-1]
    assert hub.fetched(LORA.repository)["b.safetensors"] == len(WEIGHTS)


def test_a_killed_process_leaves_what_the_next_one_resumes(hub: Hub, lora: str, home: Path) -> None:
    hub.faults = [Fault(path="/resolve/", bytes_per_second=200_000)]
    program = (
        "from contracts.hub.selection import lora_file\n"
        "from contracts.hub.snapshot import fetch\n"
        "from contracts.hub.source import HubSource\n"
        "fetch(HubSource('org/lora'), lora_file(), on_progress=lambda done, _: print(done, flush=True))\n"
    )
    with running(program) as (process, shown):
        while int(shown.readline()) < 60_000:
            pass
        process.kill()
    hub.faults = []
    assert list((home / "hub").rglob("*.incomplete"))
    assert get().paths[0].read_bytes() == WEIGHTS
    (rest,) = [request.sent_bytes for request in hub.requests if request.status == 206]
    assert 0 < rest < len(WEIGHTS)
    assert not list((home / "hub").rglob("*.incomplete"))


def test_a_hub_that_sends_a_byte_now_and_then_is_left(
    hub: Hub, lora: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")
    hub.faults = [Fault(path="/resolve/", bytes_per_second=100)]
    with pytest.raises(HubUnavailable, match="the hub sent org/lora too slowly"):
        get()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HF_ENDPOINT", "hub.test", "HF_ENDPOINT must be an address"),
        ("HF_TOKEN", "hf_tökén", "HF_TOKEN contains characters that are not allowed"),
        ("HTTP_PROXY", "telnet://proxy.test", "the proxy that HTTPS_PROXY"),
    ],
)
def test_a_variable_that_makes_every_request_impossible_is_named(
    hub: Hub, lora: str, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(HubRefused, match=message):
        get()


def test_a_file_that_another_process_downloads_is_waited_for(hub: Hub, lora: str) -> None:
    hub.faults = [Fault(path="/resolve/", bytes_per_second=8 * 2**20)]
    found: list[Snapshot] = []
    threads = [threading.Thread(target=lambda: found.append(get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert sent(hub) == len(WEIGHTS)


def test_a_byte_that_flips_in_the_cache_is_noticed_and_fetched_again(hub: Hub, lora: str) -> None:
    snapshot = get()
    file = blob(snapshot)
    file.write_bytes(WEIGHTS[:-1] + b"?")
    assert get(revision=lora).paths[0].read_bytes() == WEIGHTS
    assert sent(hub) == 2 * len(WEIGHTS)


def test_what_another_program_put_into_the_cache_is_verified_once(hub: Hub, lora: str) -> None:
    snapshot = get()
    shutil.rmtree(snapshot.folder.parent.parent / "trees")
    for marker in blob(snapshot).parent.glob("*.verified"):
        marker.unlink()
    hub.stop()
    assert find_damage(snapshot) == []
    status = blob(snapshot).stat()
    blob(snapshot).write_bytes(WEIGHTS[:-1] + b"?")
    os.utime(blob(snapshot), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert find_damage(snapshot) == []  # it was not read again
    os.utime(blob(snapshot), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert find_damage(snapshot) == ["a.safetensors"]


def test_what_another_program_fetched_in_part_is_completed_and_will_do_while_the_hub_is_away(hub: Hub) -> None:
    source = HubSource("org/sdxl")
    commit = hub.commit(source.repository, sketch(with_variant(checkpoint(), parts=["unet", "vae"])))
    half = model_files("StableDiffusionXLPipeline", "fp16")
    snapshot = get(source)
    complete = fetch(source, half)
    # Nobody left a listing, and of the variant there is one component only.
    shutil.rmtree(snapshot.folder.parent.parent / "trees")
    (snapshot.folder / "vae/diffusion_pytorch_model.fp16.safetensors").unlink()
    hub.stop()
    assert "vae/diffusion_pytorch_model.safetensors" in fetch(source, half, revision=commit).files
    hub.start()
    assert set(fetch(source, half, revision=commit).files) == set(complete.files)


def test_a_disk_with_too_little_room_is_told_before_anything_is_fetched(
    hub: Hub, lora: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40, 1000))
    with pytest.raises(HubUnavailable, match=f"org/lora needs {len(WEIGHTS)} bytes more .* has 1000 bytes free"):
        get()
    assert sent(hub) == 0


def test_a_cache_that_cannot_be_written_is_told_without_its_path(hub: Hub, lora: str, home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(HubUnavailable) as caught:
        get()
    assert "HF_HOME" in str(caught.value)
    assert str(home) not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "message", "retry_seconds"),
    [
        (Fault(status=503), "the hub answers with status 503, so org/lora cannot be fetched now", None),
        (
            Fault(status=429, retry_after_seconds=7),
            "the hub answers with status 429, so org/lora cannot be fetched now",
            7.0,
        ),
        (Fault(is_silent=True), "the hub did not answer in time about org/lora", None),
        (Fault(path="/resolve/", is_silent=True), "the hub did not answer in time about org/lora", None),
        (
            Fault(path="/resolve/", is_short=True),
            "the connection to the hub broke while org/lora was fetched",
            None,
        ),
    ],
)
def test_what_may_be_tried_again(
    hub: Hub, lora: str, fault: Fault, message: str, retry_seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault.is_silent:
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    hub.faults = [fault]
    with pytest.raises(HubUnavailable) as caught:
        get()
    assert (str(caught.value), caught.value.retry_seconds) == (message, retry_seconds)


def test_a_hub_that_cannot_be_reached_may_be_tried_again(hub: Hub, lora: str) -> None:
    hub.stop()
    with pytest.raises(HubUnavailable, match="the hub cannot be reached, so org/lora cannot be fetched"):
        get()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "org/lora is gated: accept its terms on the hub and set HF_TOKEN for the worker"),
        (
            "another",
            "org/lora is gated: the account of HF_TOKEN has no access yet: accept its terms on the hub",
        ),
        ("the-token", None),
    ],
)
def test_a_gated_repository_needs_an_account_with_access(
    hub: Hub, lora: str, token: str | None, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gates = {LORA.repository: "the-token"}
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    if message is None:
        assert get().paths[0].read_bytes() == WEIGHTS
        return
    with pytest.raises(HubRefused) as caught:
        get()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            HubSource("org/nothing"),
            "org/nothing does not exist on the hub, or is private: check its name, or set HF_TOKEN for the worker",
        ),
        (
            HubSource(LORA.repository, "v9", LORA.file),
            "org/lora has no revision v9: use a branch, a tag or a commit of it",
        ),
        (
            HubSource(LORA.repository, None, "b.safetensors"),
            "org/lora has no file b.safetensors; its .safetensors files: a.safetensors",
        ),
    ],
)
def test_what_is_missing_is_final(hub: Hub, lora: str, source: HubSource, message: str) -> None:
    with pytest.raises(HubRefused) as caught:
        get(source)
    assert str(caught.value) == message


def test_a_listing_cannot_lead_out_of_the_cache(hub: Hub, home: Path) -> None:
    hub.commit(
        "org/lora",
        {"../../../../evil.safetensors": b"evil", "/evil.safetensors": b"evil", "good.safetensors": b"good"},
    )
    assert get(HubSource("org/lora")).files == ("good.safetensors",)
    with pytest.raises(HubRefused):
        fetch(HubSource("org/lora"), one_file("../../../../evil.safetensors"))
    assert not list(home.parent.rglob("evil*"))


def test_the_listing_is_read_by_huggingface_hub_too(hub: Hub, lora: str) -> None:
    snapshot = get()
    listing = json.loads((snapshot.folder.parent.parent / "trees" / f"{lora}.json").read_text())
    (file,) = hub.files(LORA.repository).values()
    entry = listing["files"]["a.safetensors"]
    assert (listing["format_version"], entry["lfs_sha256"], entry["lfs_size"]) == (1, file.sha256, len(WEIGHTS))
