"""Claims jobs that can run now: their files are here, their function is ours, and the memory plan has room.

What jobs lack is prepared meanwhile. Knows nothing of how jobs run or end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from contracts.errors import FailureCode
from contracts.queue.client import FORMER_RUN_FUNCTIONS, RUN_FUNCTION
from contracts.queue.leases import Claim, ClaimCriteria, Claims, NextJobs, NotReady
from contracts.queue.records import JobError
from worker.loop.claim_policy import ClaimPolicy
from worker.loop.prefetch import Prefetcher
from worker.pool.pool import Pool
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_REDIS_PAUSE_SECONDS = 0.5
_FUNCTION_REFUSED = JobError.of(FailureCode.REFUSED_FUNCTION, "the job names a function that is not allowed")


class Claimer:
    """Claims jobs for one pipeline call at a time.

    Attributes:
        wait_seconds: after a claim without jobs: when to try again, unless something wakes the worker before.
    """

    def __init__(
        self,
        connection: Redis,
        claims: Claims,
        pool: Pool,
        prefetcher: Prefetcher,
        policy: ClaimPolicy,
        settings: WorkerSettings,
        held_claims: Callable[[], Sequence[Claim]],
    ) -> None:
        """Build it.

        Args:
            connection: for RQ; returns bytes.
            held_claims: returns the claims that this worker knows of: others are of a claim whose answer was lost.
        """
        self.wait_seconds = settings.poll_seconds
        self._connection = connection
        self._claims = claims
        self._pool = pool
        self._prefetcher = prefetcher
        self._policy = policy
        self._settings = settings
        self._held_claims = held_claims
        self._claim_lost = False

    def claim(self) -> list[Claim]:
        """Jobs for one pipeline call; empty where there are none."""
        self.wait_seconds = self._settings.poll_seconds
        try:
            if self._claim_lost:
                self._claims.release_lost(self._held_claims())
                self._claim_lost = False
            claim = self._claims.claim(self._criteria())
            return self._fitting(self._prepared(self._allowed([] if claim is None else [claim])))
        except NotReady as error:
            self.prepare(error.names)
            self.wait_seconds = 0.0  # another model's jobs may be ready
        except RedisError as error:
            _log.warning("nothing claimed, Redis does not answer: %s", error)
            # The claim may have run and only its answer been lost.
            self._claim_lost = True
            self.wait_seconds = _REDIS_PAUSE_SECONDS
        return []

    def peek(self) -> NextJobs:
        """The jobs that would be claimed now; in any thread."""
        return self._claims.peek(self._criteria())

    def prepare(self, names: Sequence[str]) -> None:
        """Begin to prepare what jobs lack; in any thread."""
        # The model, which takes longest, last: a LoRA that cannot be had ends the job before.
        for name in reversed(names):
            self._prefetcher.begin(name)

    def _criteria(self) -> ClaimCriteria:
        deferred, warm = self._prefetcher.deferred, self._pool.warm
        self._prefetcher.forget(warm)
        ready = {*warm, *self._prefetcher.ready}
        return self._policy.criteria(warm, ready, [name for name in deferred if name not in ready])

    def _prepared(self, claims: list[Claim]) -> list[Claim]:
        """The claims with all that they need; others, which a release queued that did not say so, go back."""
        ready = {*self._pool.warm, *self._prefetcher.ready}
        prepared = [claim for claim in claims if ready.issuperset(claim.job.parameters.needs)]
        for claim in reversed(claims):
            if claim not in prepared:
                self._claims.release(claim, needs=claim.job.parameters.needs)
        return prepared

    def _allowed(self, claims: list[Claim]) -> list[Claim]:
        """The claims whose RQ job names our function; any other was planted: it fails here, and is logged."""
        allowed = []
        for claim in claims:
            try:
                function = self._function_of(claim.job.id)
            except NoSuchJobError:
                # After a failover, two connections may lead to different servers for a moment: no reason to fail
                # the job. Its lease expires, which uses up an attempt.
                _log.warning("job %s has no job of RQ: not run now", claim.job.id)
                continue
            if function == RUN_FUNCTION or function in FORMER_RUN_FUNCTIONS:
                allowed.append(claim)
                continue
            _log.error("job %s names the function %r: refused", claim.job.id, function)
            self._claims.fail(claim, _FUNCTION_REFUSED)
        return allowed

    def _fitting(self, claims: list[Claim]) -> list[Claim]:
        """The claims that the memory plan can run together, adapters included; the others are released."""
        count = self._pool.count_fitting([claim.job.parameters for claim in claims])
        for claim in reversed(claims[count:]):
            self._claims.release(claim)
        return claims[:count]

    def _function_of(self, job_id: str) -> str | None:
        try:
            return RqJob.fetch(job_id, connection=self._connection, serializer=JSONSerializer).func_name
        except (ValueError, TypeError, KeyError):
            return None
