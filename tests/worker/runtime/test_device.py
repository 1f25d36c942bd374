"""Which device a worker takes, how much of it plans may use, and who may share it."""

from __future__ import annotations

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
