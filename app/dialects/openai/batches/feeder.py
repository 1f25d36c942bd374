"""The work on batches: creates jobs for their lines, a bounded number at a time, and stores their results.

Runs in every API process, because only these read and check requests; one process works on a batch at a time, in
rounds of a few seconds. What a round has done counts from its commit on. A round that a crash has ended is
repeated: each line has an idempotency key, by which the job that was created for it is found again.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from redis.exceptions import RedisError

from app.auth import Principal
from app.dialects.openai.batches.finishing import finish_batch
from app.dialects.openai.batches.line_jobs import LineJobs
from app.dialects.openai.batches.lines import LineRequest, parse_line, read_lines
from app.dialects.openai.batches.results import ResultFiles
from app.dialects.openai.batches.validation import FileLimits, validate_file
from app.errors import JobDidNotComplete, describe
from app.periodic import repeating
from app.services import Services
from contracts.batches.batches import LEASE_SECONDS, BatchLease, LeaseLost
from contracts.batches.records import Batch, BatchStatus, LineError, Round, StartedLine
from contracts.errors import Conflict, DarkroomError, Gone, ModelUnavailable, NotFound, TryLater, Unavailable
from contracts.jobs.records import JobState

log = logging.getLogger(__name__)

#: Lines of one batch whose jobs wait or run at one time: enough for workers to join them, and little of the queue.
MAX_STARTED = 32
_PAUSE_SECONDS = 1.0
#: After an unexpected error.
_ERROR_SECONDS = 15.0
#: After this time a round commits what it has done.
_ROUND_SECONDS = 5.0


@asynccontextmanager
async def feeding(services: Services) -> AsyncIterator[None]:
    """Work on batches while the block runs. A round in progress ends soon after it, and is repeated later."""
    feeder = BatchFeeder(services)
    async with repeating(feeder.work_next, _PAUSE_SECONDS):
        try:
            yield
        finally:
            feeder.stop()


class Stopped(DarkroomError):
    """Exception that ends the work of a process that is about to end."""


class BatchFeeder:
    """The work of one process on all batches, one after another."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._jobs = LineJobs(services)
        self._stopping = threading.Event()
        self._extended_at = 0.0

    def stop(self) -> None:
        """End the round in progress at the next line."""
        self._stopping.set()

    def work_next(self) -> bool:
        """Run a round of the batch that is due; False where none is.

        Raises:
            Unavailable: Redis or the storage does not answer; the round is repeated later.
        """
        batches = self._services.batches
        lease = None if self._stopping.is_set() else batches.claim()
        if lease is None:
            return False
        self._extended_at, pause_seconds = time.monotonic(), _ERROR_SECONDS
        try:
            pause_seconds = 0.0 if self._work(lease) else _PAUSE_SECONDS
        except Stopped:
            pause_seconds = 0.0
        except LeaseLost as error:
            log.warning("%s", error)
        except NotFound as error:
            errors = (LineError(code="file_missing", message=str(error)),)
            self._fail(lease, errors)
        finally:
            with suppress(DarkroomError):  # the lease ends by itself
                batches.release(lease, pause_seconds)
        return True

    def _work(self, lease: BatchLease) -> bool:
        """Run one round; returns whether it changed anything."""
        services, batch = self._services, self._services.batches.fetch(lease.id)
        if batch.status is BatchStatus.VALIDATING:
            self._validate(lease, batch)
            return True
        principal = self._principal_of(batch)
        if batch.ending is None and services.queue.now() >= batch.expires_at:
            batch = self._end(lease, BatchStatus.EXPIRED)
        elif batch.ending is None and principal is None:
            batch = services.batches.cancel(batch.id, batch.owner)
        started, done, is_fed = services.batches.started(batch.id), Round(), False
        if batch.ending in (BatchStatus.EXPIRED, BatchStatus.CANCELLED):
            self._cancel(started.values())
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            results = ResultFiles(batch, Path(folder))
            self._collect(lease, batch, started, results, done)
            if batch.ending is None and principal is not None:
                room = MAX_STARTED - len(started) + len(done.ended)
                is_fed = self._feed(lease, batch, principal, room, results, done)
            for kind, path in results.paths().items():
                done.parts[kind] = services.batches.write_part(lease, batch, kind, path)
        is_busy = done != Round()
        if is_busy:
            services.batches.commit(lease, done)
        if len(started) == len(done.ended) and not done.started and (is_fed or batch.ending is not None):
            if batch.ending is None:
                self._end(lease, BatchStatus.COMPLETED)
            finish_batch(services, lease, lambda: self._go_on(lease))
        return is_busy

    def _validate(self, lease: BatchLease, batch: Batch) -> None:
        settings = self._services.settings
        limits = FileLimits(settings.max_body_bytes, settings.max_jsonl_lines)
        total, errors = validate_file(self._services.storage, batch, limits, lambda: self._go_on(lease))
        if errors:
            self._fail(lease, errors)
        else:
            fields = {"status": BatchStatus.IN_PROGRESS, "total": total}
            self._services.batches.commit(lease, Round(fields=fields))

    def _fail(self, lease: BatchLease, errors: Sequence[LineError]) -> None:
        shown = [error.model_dump() for error in errors]
        self._services.batches.finish(lease, BatchStatus.FAILED, [], errors=shown)

    def _end(self, lease: BatchLease, outcome: BatchStatus) -> Batch:
        """Create no further jobs for a batch. Returns it as it is then: it may have been cancelled before."""
        fields = {"status": BatchStatus.FINALIZING, "outcome": outcome}
        self._services.batches.commit(lease, Round(fields=fields))
        return self._services.batches.fetch(lease.id)

    def _cancel(self, lines: Iterable[StartedLine]) -> None:
        for line in lines:
            with suppress(Conflict, NotFound):  # it has ended
                self._services.queue.cancel(line.job)

    def _collect(
        self,
        lease: BatchLease,
        batch: Batch,
        started: Mapping[int, StartedLine],
        results: ResultFiles,
        done: Round,
    ) -> None:
        """Write the results of the jobs that have ended."""
        records = {
            record.id: record for record in self._services.queue.fetch_all([s.job for s in started.values()])
        }
        for number, line in sorted(started.items()):
            self._go_on(lease)
            record = records.get(line.job)
            if record is not None and not record.state.is_final:
                continue
            done.ended.append(number)
            is_unrun = batch.ending is not None and record is not None and record.state is JobState.CANCELLED
            if is_unrun and batch.ending is not None:
                results.add_unrun(number, line.custom_id, batch.ending)
                continue
            try:
                self._jobs.add_answer(batch, number, line, record, results)
                done.completed += 1
            except (JobDidNotComplete, Gone) as error:
                results.add_failure(number, line.custom_id, describe(error))
                done.failed += 1

    def _feed(
        self,
        lease: BatchLease,
        batch: Batch,
        principal: Principal,
        room: int,
        results: ResultFiles,
        done: Round,
    ) -> bool:
        """Create jobs for the next lines, as far as there is room; returns whether that was the last line."""
        if room <= 0:
            return False
        ends = time.monotonic() + _ROUND_SECONDS
        for line in read_lines(self._services.storage, batch, self._services.settings.max_body_bytes):
            if len(done.started) >= room or time.monotonic() >= ends:
                return False
            self._go_on(lease)
            request = parse_line(line.data or b"", batch.endpoint)
            if request is not None:
                try:
                    done.started[line.number] = self._jobs.submit(batch, principal, line.number, request)
                except ModelUnavailable as error:
                    self._refuse(line.number, request, error, results, done)
                except (TryLater, Conflict, Unavailable, RedisError) as error:
                    log.info("batch %s waits at line %d: %s", batch.id, line.number, error)
                    return False
                except Exception as error:
                    if not isinstance(error, DarkroomError):
                        log.exception("line %d of batch %s failed", line.number, batch.id)
                    self._refuse(line.number, request, error, results, done)
            done.fields |= {"offset": line.end, "line": line.number}
        return True

    def _refuse(
        self, number: int, request: LineRequest, error: Exception, results: ResultFiles, done: Round
    ) -> None:
        results.add_failure(number, request.custom_id, describe(error))
        done.failed += 1

    def _principal_of(self, batch: Batch) -> Principal | None:
        """Whose jobs those of a batch are, with the limits of the key as they are now; None: it was revoked."""
        if batch.api_key == Principal().key_id:
            return Principal(batch.owner, max_jobs=self._services.settings.anonymous_max_jobs or None)
        key = self._services.api_keys.find(batch.api_key)
        return None if key is None or key.revoked_at is not None else Principal.of(key)

    def _go_on(self, lease: BatchLease) -> None:
        """Keep the lease; raises Stopped where the process is about to end, LeaseLost, Unavailable."""
        if self._stopping.is_set():
            raise Stopped("the process ends")
        if time.monotonic() - self._extended_at > LEASE_SECONDS / 4:
            self._services.batches.extend(lease)
            self._extended_at = time.monotonic()
