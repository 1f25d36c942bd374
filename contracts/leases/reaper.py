"""Reaps on behalf of a process: requeues or ends the jobs of silent workers, and ends those past their deadline.

Workers and API processes do this, so that deadlines and cancels act while no worker lives. Knows no HTTP.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from contracts.leases.claims import Claims

_log = logging.getLogger(__name__)

#: A ping that takes longer than this share of a lease was answered by a Redis that hung: leases are extended three
#: times while they last, so a shorter pause ends none.
_HANG_SHARE = 0.25


class Reaper:
    """Reaper of lost jobs, once per call of `reap`.

    After Redis was away, leases have expired whose workers live: these get one lease's time to extend them, and
    also when this process starts.
    """

    def __init__(self, claims: Claims, delete_images: Callable[[str], object]) -> None:
        """`delete_images` deletes the stored images of a job, by its id."""
        self._claims = claims
        self._delete_images = delete_images
        self._spare_leases_before = 0.0
        self.spare_leases()

    def spare_leases(self) -> None:
        """Redis was away: leave leases alone for as long as one lasts."""
        self._spare_leases_before = time.monotonic() + self._claims.lease_seconds

    def reap(self) -> None:
        """Reap once.

        Raises:
            RedisError: Redis does not answer.
            Unavailable: the storage does not.
        """
        try:
            # A Redis that hangs runs the commands that it was sent once it continues. By then the leases of live
            # workers have expired, so nothing is reaped while it hangs, or right after it continues.
            asked_at = time.monotonic()
            self._claims.connection.ping()
            if time.monotonic() - asked_at > self._claims.lease_seconds * _HANG_SHARE:
                self.spare_leases()
            requeued, ended = self._claims.reap(leases=time.monotonic() > self._spare_leases_before)
        except RedisError:
            self.spare_leases()
            raise
        if requeued:
            _log.warning("%d jobs requeued: their workers were lost, or were not Darkroom workers", requeued)
        for job_id in ended:
            _log.error("job ended: its worker was lost", extra={"job_id": job_id})
            self._delete_images(job_id)
