"""Claims jobs that can run now: their files are here, and their function is ours.

What jobs lack is prepared meanwhile. Knows nothing of how jobs run or end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError
from contracts.leases.claim import Claim
from contracts.leases.criteria import ClaimCriteria, MustRunAlone, NextJobs, NotReady, Suspended
from contracts.queue.new_job import FORMER_RUN_FUNCTIONS, RUN_FUNCTION
from contracts.requests.training.settings import EIGHT_BIT
from worker.loop.claim_policy import ClaimPolicy
from worker.loop.preparation.prefetch import Prefetcher
from worker.loop.resources import WorkerResources
from worker.training.optimizers import available_optimizers

_log = logging.getLogger(__name__)

_REDIS_PAUSE_SECONDS = 0.5
_FUNCTION_REFUSED = JobError.of(FailureCode.REFUSED_FUNCTION, "the job names a function that is not allowed")


class Claimer:
    """Claimer of one job after another.

    Attributes:
        wait_seconds: after a claim without jobs: when to try again, unless something wakes the worker before.
        is_suspended: whether `rq suspend` kept the last claim from taking a job.
    """

    def __init__(
        self,
        resources: WorkerResources,
        prefetcher: Prefetcher,
        policy: ClaimPolicy,
        held_claims: Callable[[], Sequence[Claim]],
    ) -> None:
        """`held_claims`: the claims that this worker knows of; others are of a claim whose answer was lost."""
        self.wait_seconds = resources.settings.poll_seconds
        self.is_suspended = False
        self._connection = resources.connection
        self._claims = resources.claims
        self._pool = resources.pool
        self._settings = resources.settings
        self._prefetcher = prefetcher
        self._policy = policy
        self._held_claims = held_claims
        self._claim_lost = False
        self._runs_alone = False
        self._tiers: tuple[int, ...] = ()
        self._optimizers = available_optimizers()

    def claim(self, tiers: Sequence[int]) -> Claim | None:
        """The next job that can run now beside those in flight, which have these tiers; None: there is none."""
        self.wait_seconds, self.is_suspended = self._settings.poll_seconds, False
        if not tiers:
            self._runs_alone = False
        if self._runs_alone:
            return None
        try:
            if self._claim_lost:
                self._claims.release_lost(self._held_claims())
                self._claim_lost = False
            self._tiers = tuple(tiers)
            claim = self._claims.claim(self._criteria())
            if claim is not None and not self._may_run(claim):
                self.wait_seconds = 0.0
                return None
            self._runs_alone = claim is not None and claim.alone
            return claim
        except Suspended:
            self.is_suspended = True
        except MustRunAlone:
            _log.debug("nothing claimed beside jobs in flight: the next job runs alone")
        except NotReady as error:
            self.prepare(error.names)
            self.wait_seconds = 0.0  # another model's jobs may be ready
        except RedisError as error:
            _log.warning("nothing claimed, Redis does not answer: %s", error)
            # The claim may have run and only its answer been lost.
            self._claim_lost = True
            self.wait_seconds = _REDIS_PAUSE_SECONDS
        return None

    def peek(self) -> NextJobs:
        """The jobs that would be claimed now; in any thread."""
        return self._claims.peek(self._criteria())

    def prepare(self, names: Sequence[str]) -> None:
        """Begin to prepare what jobs lack; in any thread."""
        # The model, which takes longest, last: a LoRA that cannot be had ends the job before.
        for name in reversed(names):
            self._prefetcher.begin(name)

    def _criteria(self) -> ClaimCriteria:
        deferred = self._prefetcher.deferred
        # Networks that run beside the models replace none: their jobs never wait for one to be left.
        warm = [*(row.id for row in self._pool.catalogue.networks), *self._pool.warm]
        self._prefetcher.forget(self._pool.warm)
        ready = {*self._pool.warm, *self._prefetcher.ready, *self._optimizers}
        lacking = {EIGHT_BIT} - self._optimizers
        deferred = [*deferred, *lacking]
        return self._policy.criteria(warm, self._tiers, ready, [name for name in deferred if name not in ready])

    def _may_run(self, claim: Claim) -> bool:
        """Whether a claimed job can run here; else it has ended, or is back in its queue."""
        if not self._is_ours(claim):
            return False
        needs = claim.job.parameters.needs
        if {*self._pool.warm, *self._prefetcher.ready, *self._optimizers}.issuperset(needs):
            return True
        # An earlier release queued it, and did not say what it needs.
        self._claims.release(claim, needs=needs)
        return False

    def _is_ours(self, claim: Claim) -> bool:
        """Whether the job's RQ job names our function; any other was planted: it fails here, and is logged."""
        try:
            function = self._function_of(claim.job.id)
        except NoSuchJobError:
            # After a failover, two connections may lead to different servers for a moment: no reason to fail
            # the job. Its lease expires, which uses up an attempt.
            _log.warning("job %s has no RQ record; it is not run now", claim.job.id)
            return False
        if function == RUN_FUNCTION or function in FORMER_RUN_FUNCTIONS:
            return True
        _log.error("job %s names the function %r: refused", claim.job.id, function)
        self._claims.fail(claim, _FUNCTION_REFUSED)
        return False

    def _function_of(self, job_id: str) -> str | None:
        job = RqJob(job_id, self._connection, JSONSerializer)
        data = self._connection.hget(job.key, "data")  # of some twenty fields, which `RqJob.fetch` reads
        if data is None:
            raise NoSuchJobError(job_id)
        try:
            job.restore({"data": data})
            return job.func_name
        except (ValueError, TypeError, KeyError):
            return None
