"""What a worker's device has drawn, shared among jobs: by the card's counter, else as an estimate that says so.

The counter is NVML's, which comes with NVIDIA's driver; no Python package is needed. Knows no queue.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from contracts.jobs.receipt import Energy
from worker.runtime.device import card_identifier

_log = logging.getLogger(__name__)

#: Interval between two looks at the counter, which cards bring up to date about ten times a second.
_READ_SECONDS = 0.25
#: What estimates assume where the settings name nothing. A desktop's CPU: half of the 10^12 operations a second of
#: eight cores with AVX2 at 4 GHz, at 65 W. A data center's GPU: SDXL's steps on an H100 (docs/gpu.md), at 700 W.
_CPU_FLOPS_PER_JOULE, _GPU_FLOPS_PER_JOULE = 8e9, 4e11
#: Power of the same, for jobs whose operations are not known.
_CPU_WATTS, _GPU_WATTS = 65.0, 300.0


class Metered(Protocol):
    """A job in flight.

    Attributes:
        used_seconds: of the device, so far.
        metered_seconds: those of them whose energy is known.
        flops: floating-point operations so far; None where not all are known.
        energy: of these; None before the first.
    """

    used_seconds: float
    metered_seconds: float
    flops: float | None
    energy: Energy | None


@dataclass(frozen=True)
class AssumedPower:
    """Assumptions about a device for estimates of energy.

    Attributes:
        flops_per_joule: floating-point operations that it computes for a joule, above 0.
        watts: that it draws while it computes, above 0.
    """

    flops_per_joule: float
    watts: float

    @classmethod
    def of(cls, device: torch.device, flops_per_joule: float | None = None, watts: float | None = None) -> Self:
        """That of a device of this type, except for what the settings name."""
        is_cpu = device.type == "cpu"
        return cls(
            flops_per_joule or (_CPU_FLOPS_PER_JOULE if is_cpu else _GPU_FLOPS_PER_JOULE),
            watts or (_CPU_WATTS if is_cpu else _GPU_WATTS),
        )

    def estimate(self, job: Metered) -> Energy:
        """The energy of a job so far: by its operations where they are known, else by its seconds."""
        if job.flops is None:
            joules = round(job.used_seconds * self.watts, 3)
            return Energy(joules=joules, source="estimated", assumed_watts=self.watts)
        joules = round(job.flops / self.flops_per_joule, 3)
        return Energy(joules=joules, source="estimated", assumed_flops_per_joule=self.flops_per_joule)


class EnergyMeter:
    """Meter that shares a device's energy among the jobs in flight, by the device seconds that each has used."""

    def __init__(
        self,
        assumed: AssumedPower,
        counter: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Share nothing yet.

        Args:
            assumed: what estimates assume of the device.
            counter: joules that the device has drawn since some moment; raises OSError where it fails. None: all
                energy is estimated.
            clock: seconds since some moment.
        """
        self._assumed, self._counter, self._clock = assumed, counter, clock
        self._joules = self._read_at = 0.0

    def begin(self) -> None:
        """A job begins while none is in flight: what the device has drawn until now is nobody's."""
        self._joules = self._read() or 0.0

    def share(self, jobs: Collection[Metered], *, now: bool = False) -> None:
        """Bring the energy of all jobs in flight up to date.

        Args:
            now: whether to read the counter at once, because a job has ended; else it is read at intervals.
        """
        if not now and self._clock() - self._read_at < _READ_SECONDS:
            return
        joules = self._read()
        if joules is None:
            for job in jobs:
                job.metered_seconds = job.used_seconds
                job.energy = self._assumed.estimate(job)
            return
        new_seconds = sum(job.used_seconds - job.metered_seconds for job in jobs)
        if new_seconds <= 0:
            return  # the device still computes what the next look shares
        drawn, self._joules = joules - self._joules, joules
        for job in jobs:
            own = drawn * (job.used_seconds - job.metered_seconds) / new_seconds
            before = 0.0 if job.energy is None else job.energy.joules
            job.metered_seconds = job.used_seconds
            job.energy = Energy(joules=round(before + own, 3), source="measured")

    def _read(self) -> float | None:
        """The counter's joules; None without a counter, and after its first failure."""
        self._read_at = self._clock()
        if self._counter is None:
            return None
        try:
            return self._counter()
        except OSError as error:
            _log.warning("energy is estimated from now on: %s", error)
            self._counter = None
            return None


def open_counter(device: torch.device, library: str = "libnvidia-ml.so.1") -> Callable[[], float] | None:
    """A function that reads how many joules an NVIDIA card has drawn since its driver was loaded.

    It counts the whole card, other processes included.

    Args:
        library: NVML, as the dynamic linker finds it.

    Returns:
        None on other devices, on cards older than Volta, on a part of a card (MIG), and without NVML.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    handle = ctypes.c_void_p()
    name = f"GPU-{card_identifier(device).removeprefix('GPU-')}".encode()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
        return None

    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        code = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        if code:
            raise OSError(f"NVML's energy counter returns error {code}")
        return millijoules.value / 1000

    try:
        read()
    except OSError:
        return None
    return read
