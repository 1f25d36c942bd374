"""Which device a worker takes, how much of it plans may use, and who may share it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from contracts.memory.card import budget_of_card
from worker.runtime import device as devices
from worker.runtime.device import DeviceUnavailable, claim_card, pick_device

GIB = 2**30


@pytest.mark.parametrize(("requested", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("auto", 0)])
def test_a_cuda_device_always_has_its_index(requested: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(requested) == torch.device("cuda", index)


def test_a_card_that_does_not_exist_and_a_name_that_is_unknown_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="DARKROOM_WORKER_DEVICE=cuda cannot be used"):
        pick_device("cuda")
    with pytest.raises(DeviceUnavailable, match="must be auto, cpu, cuda or cuda:N, got 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceUnavailable, match="2 CUDA devices are visible"):
        pick_device("cuda:2")


def test_auto_is_the_cpu_only_where_no_gpu_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceUnavailable, match="CUDA_VISIBLE_DEVICES is '0', so a GPU was expected"):
        pick_device("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device("auto") == torch.device("cpu")


def test_plans_may_use_what_is_free_on_a_card_less_a_small_margin() -> None:
    """FLUX.1-dev with all components on demand needs 22.63 GiB, which fits a 24 GB card."""
    assert 22.63 * GIB < budget_of_card(int(23.5 * GIB), 24564 * 2**20) < 23.1 * GIB
    assert budget_of_card(79 * GIB, 80 * GIB) == 78 * GIB
    assert budget_of_card(10 * GIB, 24 * GIB) < 10 * GIB
    assert budget_of_card(0, 24 * GIB) == 0


def test_what_other_processes_hold_of_a_card_is_told_beyond_what_a_small_desktop_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = torch.device("cuda", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "card_identifier", str)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: GIB)
    for others_gib, told in ((0.1, ""), (6.0, "other processes hold 6.0 GiB of cuda:1; plans leave it alone")):
        free = int((24 - 1 - 0.5 - others_gib) * GIB)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 24 * GIB))
        file = devices.claim_device(card, shared=False)
        assert file is not None
        file.close()
        assert ", ".join(caplog.messages) == told
        assert devices.usable_bytes(card) == budget_of_card(free + GIB, 24 * GIB)


def test_the_workers_card_is_made_current_so_that_no_other_gets_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cpu", "cuda:1"):
        devices.select_device(torch.device(name))
    assert current == [torch.device("cuda:1")]


def test_a_card_that_torch_cannot_use_is_refused_with_the_driver_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).\nMore of it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(
        DeviceUnavailable, match=r"CUDA 13.0 needs NVIDIA driver 580 or newer\): .* too old .*12040"
    ) as error:
        pick_device("cuda")
    assert "More of it" not in str(error.value)


def test_two_workers_use_one_card_only_where_both_have_a_share(tmp_path: Path) -> None:
    first = claim_card("card", shared=True, folder=tmp_path)
    second = claim_card("card", shared=True, folder=tmp_path)
    with pytest.raises(DeviceUnavailable, match="DARKROOM_WORKER_BUDGET_BYTES"):
        claim_card("card", shared=False, folder=tmp_path)
    claim_card("another card", shared=False, folder=tmp_path).close()
    first.close()
    second.close()
    alone = claim_card("card", shared=False, folder=tmp_path)
    with pytest.raises(DeviceUnavailable):
        claim_card("card", shared=True, folder=tmp_path)
    alone.close()


def test_a_device_has_one_copy_stream_in_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []

    class CountedStream:
        def __init__(self, device: torch.device) -> None:
            made.append(device)

    monkeypatch.setattr(torch.cuda, "Stream", CountedStream)
    devices.copy_stream.cache_clear()
    streams = [devices.copy_stream(torch.device("cuda", index)) for index in (0, 1, 0, 1, 0)]
    devices.copy_stream.cache_clear()
    assert len({id(stream) for stream in streams}) == len(made) == 2
