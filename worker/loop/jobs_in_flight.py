"""The jobs that this worker has claimed and not yet completed: starts them, serves their calls, completes them.

Holds their leases and watches meanwhile. Knows neither which jobs are claimed next nor how images are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from functools import partial

from contracts.jobs.failures import FailureCode
from contracts.leases.claim import Claim
from contracts.requests.schema import Priority
from worker.engine.coroutine import Stopped, Turn
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.results.outputs import JobResult
from worker.loop.completion import JobCompleter
from worker.loop.heartbeat import Heartbeat
from worker.loop.job_work import JobWork, QueueClock, to_job
from worker.loop.lookahead import Lookahead
from worker.loop.progress import JobWatch, ProgressReporter
from worker.runtime.energy import EnergyMeter
from worker.runtime.out_of_memory import DeviceFailed
from worker.settings import WorkerSettings

#: How often jobs that wait for others to be written tell the watchdog so.
_WATCHED_SECONDS = 1.0
#: Jobs whose images are being written.
_MAX_UNWRITTEN = 4


class JobsInFlight:
    """Claimed jobs, from the start of their coroutines until their ends are written. For the jobs' thread."""

    def __init__(
        self,
        engine: Engine,
        work: JobWork,
        lookahead: Lookahead,
        reporter: ProgressReporter,
        heartbeat: Heartbeat,
        completer: JobCompleter,
        settings: WorkerSettings,
        energy: EnergyMeter,
        must_release: Callable[[], bool],
        stopping: Callable[[], bool],
        note_load_failure: Callable[[str, str], object],
    ) -> None:
        """Take no job yet.

        Args:
            energy: of the device that the engine computes on.
            must_release: asked before each call: whether all jobs go back to their queues.
            stopping: whether the process was asked to stop: trainings, which take hours, go back at once.
            note_load_failure: told the model of a job that failed since something could not be loaded, and why.
        """
        self._note_load_failure = note_load_failure
        self._engine, self._work, self._lookahead = engine, work, lookahead
        self._reporter, self._heartbeat, self._completer = reporter, heartbeat, completer
        self._settings, self._energy = settings, energy
        self._must_release, self._stopping = must_release, stopping
        self._clock = QueueClock()
        self._watches: dict[str, JobWatch] = {}
        self._completions: list[Future[None]] = []

    def start(self, claim: Claim) -> None:
        """Keep the lease of a job until it is completed, and start it."""
        is_training = claim.job.priority is Priority.TRAINING
        watch = JobWatch(self._reporter, claim, self._stopping if is_training else self._must_release)
        if not self._watches:
            self._energy.begin()
        self._reporter.add(watch)
        self._heartbeat.hold(watch)
        self._watches[claim.job.id] = watch
        job = to_job(claim.job, self._settings, self._clock)
        self._engine.start(job, partial(self._work.run, watch), watch.stop_reason)
        if len(self._engine.jobs) > 1:  # others can be served meanwhile
            for flight in self._engine.jobs:
                if isinstance(flight.coroutine.wait, Turn):  # it has not encoded its prompt yet
                    self._lookahead.expect(self._watches[flight.job.id].claim.job)

    def serve(self) -> int:
        """Have the engine make its next call, and complete the jobs that have ended with it; returns how many.

        All have ended where the device has failed: `device_failure` says so.
        """
        try:
            ended = self._engine.tick()
        except DeviceFailed as error:
            self._work.note_device_failure(error)
            ended = []
        for flight in self._engine.jobs:
            self._note_use(flight)
        self._energy.share(self._watches.values())
        if self.device_failure is not None:
            ended = [*ended, *self._engine.close()]
        self._complete(ended)
        return len(ended)

    def close(self) -> None:
        """Give up those that have not ended, and wait until all ends are written.

        Raises:
            Exception: a bug in the writing of one.
        """
        try:
            self._complete(self._engine.close())
        finally:
            for completion in self._completions:
                completion.result()

    @property
    def device_failure(self) -> DeviceFailed | None:
        """What ended the device; None while it works."""
        return self._work.device_failure

    def _complete(self, ended: Sequence[JobInFlight]) -> None:
        """Begin to store and end jobs; where a bug has ended one, the others are completed before it is raised."""
        with ExitStack() as each:
            for flight in reversed(ended):
                each.callback(self._complete_job, flight)

    def _complete_job(self, flight: JobInFlight) -> None:
        """Store and end a job in the background.

        A few results wait at most: a slow storage slows generation down instead of filling the memory.
        """
        watch = self._note_use(flight)
        self._energy.share(self._watches.values(), now=True)
        del self._watches[flight.job.id]
        self._lookahead.forget(flight.job.id)
        watch.mark_alive()
        result = flight.result
        if result is None:
            error = flight.coroutine.error
            if error is not None and not isinstance(error, Stopped):
                raise error  # a bug, or a `SystemExit` of a library: jobs' own errors are results
            result = JobResult("released" if self.device_failure is None else "device_failed")
        if result.error is not None and result.error.code is FailureCode.MODEL_LOAD_FAILED:
            job = flight.job
            name = job.parameters.needs[0] if job.generation is None else flight.stage.model
            self._note_load_failure(name, result.error.message)
        while len(self._unwritten()) >= _MAX_UNWRITTEN:
            wait(self._completions, _WATCHED_SECONDS, return_when=FIRST_COMPLETED)
            # The watches of the jobs that are being written see whether those hang.
            self._engine.mark_alive()
            watch.mark_alive()
        self._completions.append(self._completer.complete(watch.claim, watch, result))
        self._completions[-1].add_done_callback(lambda _: self._heartbeat.stop_holding(watch))

    def _note_use(self, flight: JobInFlight) -> JobWatch:
        """Bring what a job has used of the device up to date; return its watch."""
        watch = self._watches[flight.job.id]
        watch.used_seconds, watch.flops = flight.coroutine.used_seconds, flight.flops
        return watch

    def _unwritten(self) -> Sequence[Future[None]]:
        """The jobs that are being completed; raises what ended one of the others."""
        for done in [completion for completion in self._completions if completion.done()]:
            self._completions.remove(done)
            done.result()
        return self._completions
