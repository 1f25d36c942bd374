"""The memory_tracker on the CPU: it counts what is alive, changes no bit, and ends what takes too much."""

from __future__ import annotations

import gc

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from tests.support.combinations import usual_or_all
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker

CPU = torch.device("cpu")
KIB = 2**10


def _kib(count: int) -> torch.Tensor:
    return torch.zeros(count * KIB // 4)


def test_the_peak_is_what_was_alive_at_once_beside_what_was_there_before() -> None:
    memory_tracker = MemoryTracker(CPU, 2**30)
    with memory_tracker.running(resident_bytes=10 * KIB):
        first = _kib(5)
        del first
        second = _kib(3)
        third = second * 2
        del second, third
        _kib(2)
    assert memory_tracker.peak_bytes == 16 * KIB


def test_views_take_nothing_and_keep_what_they_look_at() -> None:
    memory_tracker, weight = MemoryTracker(CPU, 2**30), _kib(64).view(128, 128)
    with memory_tracker.running(0):
        turned = weight.t()
        part = (turned @ weight)[:1]
        assert turned.shape == (128, 128)
        _kib(16)
        del part
        _kib(4)
    assert memory_tracker.peak_bytes == 80 * KIB


def test_what_is_beyond_the_budget_is_the_devices_own_error() -> None:
    memory_tracker = MemoryTracker(CPU, 16 * KIB)
    with memory_tracker.running(8 * KIB):
        _kib(8)
    assert memory_tracker.peak_bytes == 16 * KIB
    with pytest.raises(torch.OutOfMemoryError, match="budget exceeded"), memory_tracker.running(9 * KIB):
        _kib(8)
    assert memory_tracker.peak_bytes == 17 * KIB
    with memory_tracker.running(0):
        _kib(16)
    assert memory_tracker.peak_bytes == 16 * KIB


def test_what_is_computed_off_the_device_is_not_counted() -> None:
    memory_tracker = MemoryTracker(CPU, 16 * KIB)
    with memory_tracker.running(0):
        memory_tracker.pause()
        large = _kib(64) + 1
        memory_tracker.resume()
        _kib(4)
        del large
    assert memory_tracker.peak_bytes == 4 * KIB


def test_the_peak_of_each_part_of_a_run_can_be_taken() -> None:
    memory_tracker = MemoryTracker(CPU, 2**30)
    with memory_tracker.running(resident_bytes=10 * KIB):
        _kib(5)
        assert memory_tracker.take_peak() == (15 * KIB, 0)
        kept = _kib(2)
        _kib(1)
        assert memory_tracker.take_peak() == (13 * KIB, 0)
        assert memory_tracker.take_peak() == (12 * KIB, 0)
        del kept
    assert MemoryTracker(CPU, None).take_peak() == (None, 0)


def test_weights_that_come_and_go_in_a_run_are_counted() -> None:
    memory_tracker = MemoryTracker(CPU, 32 * KIB)
    with memory_tracker.running(resident_bytes=10 * KIB):
        memory_tracker.set_resident(24 * KIB)
        memory_tracker.set_resident(8 * KIB)
        assert memory_tracker.take_peak() == (24 * KIB, 0)
        _kib(24)
        memory_tracker.set_resident(9 * KIB)
        with pytest.raises(torch.OutOfMemoryError):
            _kib(24)


def test_without_a_budget_nothing_is_counted_on_the_cpu() -> None:
    memory_tracker = MemoryTracker(CPU, None)
    with memory_tracker.running(8):
        memory_tracker.pause()
        _kib(4)
        memory_tracker.resume()
    assert memory_tracker.peak_bytes is None


@pytest.mark.parametrize("family", usual_or_all("sdxl", TRAINED_FAMILIES))
def test_measuring_changes_no_bit_and_ends_with_nothing_left(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model, memory_tracker = pool.model(f"shapes-{family}"), MemoryTracker(CPU, 2**30)
    model.base.set_progress_bar_config(disable=True)

    def generate() -> torch.Tensor:
        with torch.inference_mode():
            made = model.base(
                "a red circle", width=64, height=64, num_inference_steps=1, output_type="pt",
                generator=torch.Generator().manual_seed(1),
            )  # fmt: skip
        images: torch.Tensor = made.images
        return images

    plain = generate()
    with memory_tracker.running(0):
        measured = generate()
    assert torch.equal(plain, measured)
    assert memory_tracker.peak_bytes is not None
    assert memory_tracker.peak_bytes > 2**19
    gc.collect()
    first = memory_tracker.peak_bytes
    with memory_tracker.running(0):
        generate()
    assert memory_tracker.peak_bytes == first
