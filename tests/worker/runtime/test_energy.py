"""Tests for `worker.runtime.energy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from contracts.jobs.receipt import Energy
from worker.runtime.energy import AssumedPower, EnergyMeter, open_counter

ASSUMED = AssumedPower(flops_per_joule=4e11, watts=300.0)


@dataclass
class Flight:
    used_seconds: float = 0.0
    metered_seconds: float = 0.0
    flops: float | None = None
    energy: Energy | None = None

    @property
    def joules(self) -> float:
        assert self.energy is not None
        return self.energy.joules


def counted(*joules: float) -> Callable[[], float]:
    """A counter that shows these joules, one after the other, and then fails."""
    values = iter(joules)

    def read() -> float:
        value = next(values, None)
        if value is None:
            raise OSError("the card has gone")
        return value

    return read


def test_what_a_card_draws_is_shared_by_device_seconds_and_idle_time_is_nobodys() -> None:
    meter, first, second = EnergyMeter(ASSUMED, counted(1000, 1060, 1160, 5000, 5007)), Flight(), Flight()

    meter.begin()
    first.used_seconds = 0.5
    meter.share([first, second], now=True)
    first.used_seconds, second.used_seconds = 0.75, 0.75
    meter.share([first, second], now=True)

    assert (first.energy, second.energy) == (
        Energy(joules=60 + 25, source="measured"),
        Energy(joules=75, source="measured"),
    )
    third = Flight()
    meter.begin()  # hours later
    third.used_seconds = 0.1
    meter.share([third], now=True)
    assert third.joules == 7


def test_energy_drawn_before_its_seconds_are_known_is_shared_with_them() -> None:
    meter, job = EnergyMeter(ASSUMED, counted(0, 40, 90)), Flight()
    meter.begin()
    meter.share([job], now=True)  # the device still computes
    assert job.energy is None

    job.used_seconds = 0.3
    meter.share([job], now=True)
    assert job.joules == 90


def test_the_counter_is_not_read_at_every_call_of_a_denoiser() -> None:
    clock = iter([0.0, 0.0, 0.1, 0.2, 0.3, 0.3])
    meter, job = EnergyMeter(ASSUMED, counted(0, 30), lambda: next(clock)), Flight()
    meter.begin()
    for _ in range(3):
        job.used_seconds += 0.1
        meter.share([job])
    assert job.energy is None

    meter.share([job])
    assert job.joules == 30


def test_without_a_counter_or_once_it_has_failed_energy_is_an_estimate_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for counter in (None, counted(0)):
        meter, counted_job, other = EnergyMeter(ASSUMED, counter), Flight(flops=0.0), Flight()
        meter.begin()
        counted_job.used_seconds, counted_job.flops, other.used_seconds = 2.0, 6e12, 2.0
        meter.share([counted_job, other], now=True)
        assert counted_job.energy == Energy(joules=15, source="estimated", assumed_flops_per_joule=4e11)
        assert other.energy == Energy(joules=600, source="estimated", assumed_watts=300)
    assert "energy is estimated from now on: the card has gone" in caplog.text


def test_a_device_without_a_counter_has_none_and_an_assumed_power() -> None:
    cpu = torch.device("cpu")
    assert open_counter(cpu) is None
    by_default, on_a_card = AssumedPower.of(cpu), AssumedPower.of(torch.device("cuda:0"))
    assert by_default.watts < on_a_card.watts
    assert by_default.flops_per_joule < on_a_card.flops_per_joule
    assert AssumedPower.of(cpu, 5e9, 120.0) == AssumedPower(5e9, 120.0)
