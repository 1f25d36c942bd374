"""Memory that jobs in flight keep on the device between their calls, and what is left. Does not place models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from contracts.byte_sizes import gib
from contracts.jobs.failures import FailureCode, JobFailed
from worker.engine.job import JobInFlight
from worker.pool.pool import Pool

_Plan = TypeVar("_Plan")


class KeptMemory:
    """Account of the device memory of jobs that sleep. For the jobs' thread."""

    def __init__(
        self, pool: Pool, jobs: Sequence[JobInFlight], moving: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Count for these jobs, a list that changes as they begin and end.

        Args:
            moving: inside it, weights may move.
        """
        self._pool, self._jobs, self._moving = pool, jobs, moving

    def keep(self, job: JobInFlight, kept_bytes: int) -> None:
        """A job keeps so many bytes on the device between its calls from now on, and its adapters."""
        job.kept_bytes = kept_bytes
        self._pool.reserved_bytes = sum(other.kept_bytes for other in self._jobs if other.placed is None)
        self._pool.kept_bytes = sum(other.kept_bytes for other in self._jobs) + self._adapter_bytes

    def reserve(self, job: JobInFlight, plans: Mapping[_Plan, int]) -> _Plan:
        """Make room beside the models in use for what a job takes that holds none of the pool, until it says less.

        Args:
            plans: plan -> bytes; the best first, which takes the most.

        Returns:
            The first plan that fits.

        Raises:
            JobFailed: OUT_OF_MEMORY: none does.
        """
        unused = self._pool.unused_bytes
        found = next(((plan, size) for plan, size in plans.items() if size <= unused), None)
        if found is None:
            needed = gib(min(plans.values()))
            message = f"the job needs {needed} of the device's memory, of which {gib(max(0, unused))} is free"
            raise JobFailed(FailureCode.OUT_OF_MEMORY, f"{message}; send it again when the worker is less busy")
        with self._moving():
            self._pool.evict_idle(found[1])
        self.keep(job, found[1])
        return found[0]

    @property
    def _adapter_bytes(self) -> int:
        """Bytes of the adapters in flight that the served job's plan does not count."""
        by_job = [job.adapters.sizes | ({} if job.placed is None else job.placed.slot_bytes) for job in self._jobs]
        every = {sha256: size for sizes in by_job for sha256, size in sizes.items()}
        return sum(every.values()) - min((sum(sizes.values()) for sizes in by_job), default=0)

    @property
    def has_room(self) -> bool:
        """Whether one more job can keep what it needs between its calls on the device.

        Jobs in the background do not count: they leave where it gets too narrow.
        """
        plans = [job.placed.plan for job in self._jobs if job.placed is not None and not job.job.is_background]
        return all(self._pool.has_room_beside(plan) for plan in plans)

    def max_images(self, job: JobInFlight) -> int:
        """Images that a call may have by this job's plan, beside the other models on the device."""
        images, placed = job.job.parameters.num_images, job.placed
        if placed is None or not placed.plan.fits:
            return images
        return max(images, self._pool.images_with_room(job.stage.model, placed.plan))
