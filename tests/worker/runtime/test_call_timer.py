"""The timer of calls: at once on the CPU; on a device that computes behind the host, when it has ended them."""

from __future__ import annotations

import torch

from worker.runtime.call_timer import CallTimer, Event

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class _Device:
    """Stands for a CUDA device: reaches one recorded point after another when told to, a millisecond apart."""

    def __init__(self) -> None:
        self.points: list[_Point] = []
        self.reached = 0

    def make_event(self) -> Event:
        return _Point(self)


class _Point:
    def __init__(self, device: _Device) -> None:
        self._device, self.place = device, 0

    def record(self) -> None:
        self._device.points.append(self)
        self.place = len(self._device.points)

    def query(self) -> bool:
        return self.place <= self._device.reached

    def synchronize(self) -> None:
        self._device.reached = max(self._device.reached, self.place)

    def elapsed_time(self, end: Event) -> float:
        assert isinstance(end, _Point)
        return float(end.place - self.place)


def test_on_the_cpu_a_calls_seconds_are_told_when_it_ends() -> None:
    told: list[float] = []
    timer = CallTimer(CPU)
    timer.start()
    timer.stop(told.append)
    assert len(told) == 1
    assert told[0] >= 0


def test_on_a_device_that_runs_behind_they_are_told_once_it_has_ended_the_call() -> None:
    device, told = _Device(), list[float]()
    timer = CallTimer(CUDA, device.make_event)
    timer.start()
    timer.stop(told.append)
    timer.poll()
    assert told == []
    device.reached = 2
    timer.poll()
    assert told == [0.001]


def test_the_host_queues_two_calls_and_waits_for_the_first_before_the_third() -> None:
    device, told = _Device(), list[float]()
    timer = CallTimer(CUDA, device.make_event)
    for _ in range(2):
        timer.start()
        timer.stop(told.append)
    assert device.reached == 0
    timer.start()
    assert device.reached == 2
    assert len(told) == 1
