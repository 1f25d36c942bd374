"""Accepting a job: have the request checked, store its images, queue the job, and answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Response
from fastapi.concurrency import run_in_threadpool

from app.auth import Principal
from app.errors import JobDidNotComplete, JobStillRuns
from app.events.waiting import wait_with_client
from app.inputs.image import stored_bytes
from app.job_response import job_response
from app.parsing.bodies import ReceivedBody
from app.services import Services
from app.submission.checks import Checked, Draft, RequestChecks, prompts_of
from app.submission.idempotency import REPLAYED, IdempotentCall
from app.submission.retries import ClientRetry
from contracts.errors import Gone, InvalidRequest, NotFound
from contracts.jobs.records import JobRecord, JobState
from contracts.jobs.spans import submitting
from contracts.queue.idempotency import IdempotencyHold
from contracts.queue.limits import SubmitLimits
from contracts.queue.retries import RepeatableCall
from contracts.queue.usage.daily_limits import require_within
from contracts.requests.schema import DeliveryFields
from contracts.requests.task_parameters import JobTask
from contracts.tracing.trace_context import TraceContext
from contracts.views.job import JobView
from contracts.views.links import Links

log = logging.getLogger(__name__)

#: How many times its maximum predicted time a job may really take: predictions are averages.
_RUN_FACTOR = 2.0


@dataclass(frozen=True)
class Submission:
    """One client's call that creates a job.

    Attributes:
        call: what identifies a repetition of the call.
        wait_seconds: how long the client prefers to wait for the job's end; None: not at all.
        is_held: whether the call is answered at the job's end, whatever the client prefers.
        retry: how often the client's library has sent the call before.
        client_left: returns when the client's connection is closed.
        trace_context: the call's place in a trace; None without one.
    """

    services: Services
    principal: Principal
    links: Links
    call: IdempotentCall
    wait_seconds: int | None
    is_held: bool
    retry: ClientRetry
    client_left: Callable[[], Awaitable[None]]
    request_id: str
    trace_context: TraceContext | None
    _answered_calls: list[RepeatableCall] = field(default_factory=list, init=False, repr=False)

    @property
    def checks(self) -> RequestChecks:
        """What is checked before anything is stored."""
        return RequestChecks(self.services, self.principal, self.links)

    async def answer(self, body: ReceivedBody, draft: Callable[[], Draft], response: Response) -> JobView:
        """Accept a job and answer 202; or wait for its end, where the client prefers that, and answer 200.

        Args:
            body: also identifies the call for the idempotency key; released once the job is accepted.
            draft: parses the body; runs in a thread.
        """
        response.status_code = 202
        if self.wait_seconds is None:
            return await run_in_threadpool(lambda: self.view_new(self.accept(body.raw, draft, response)))
        record = await run_in_threadpool(lambda: self.accept(body.raw, draft, response))
        body.release()
        response.headers["Preference-Applied"] = f"wait={self.wait_seconds}"
        record = await self.wait(record, self.wait_seconds)
        if record.state.is_final:
            response.status_code = 200
        return await run_in_threadpool(self.view, record)

    async def wait(self, record: JobRecord, seconds: float) -> JobRecord:
        """Return the job once it has ended, or its state after `seconds`; it then goes on without the client.

        Raises:
            ClientLeft: the client closed its connection.
        """
        services = self.services
        with services.attendance.attending(record):
            found = await wait_with_client(services.notifier, services.queue, record, seconds, self.client_left)
        await run_in_threadpool(self.settle, found)
        return found

    def accept(self, body: bytes, draft: Callable[[], Draft], response: Response) -> JobRecord:
        """Submit a job, or find the one that the same call submitted before; sets the response's headers."""
        record = self._find_or_submit(body, draft, response)
        self.services.queue.confirm(record.id)  # a repeated call too: the first one may have failed here
        if self.is_held or self.wait_seconds is not None:
            self.services.attendance.register(record)
        response.headers["Location"] = self.links.job(record.id)
        return record

    def _find_or_submit(self, body: bytes, draft: Callable[[], Draft], response: Response) -> JobRecord:
        call = self.retry.call(self.call.fingerprint(body)) if self.call.key is None else None
        if call is None:
            return self.call.run(body, response, lambda hold: self.submit(draft(), hold), self._find)
        self._answered_calls.append(call)
        found = self.retry.find(call)
        if found is not None:
            response.headers[REPLAYED] = "true"
            return found
        with self.services.retries.accepting(call) as made:
            record = self.submit(draft(), None)
            made(record.id)
        return record

    def settle(self, record: JobRecord) -> None:
        """The client has the answer: its library will not retry, and a job that has not ended may go on alone."""
        if record.state.is_final:
            for call in self._answered_calls:
                self.retry.forget(call, record)
        else:
            self.services.attendance.release(record)

    def submit(self, draft: Draft, hold: IdempotencyHold | None) -> JobRecord:
        """Check a request, store its images and queue the job. A refused request leaves nothing behind.

        Raises:
            InvalidRequest: with every problem found, or because no worker has enough memory, or because the job
                would take too long.
            Conflict, QueueFull, QuotaExceeded, TooManyJobs, Unavailable: as `JobQueue.submit` says.
        """
        job, record = self.services.owner_bytes.run(self.principal.owner, lambda: self._submit(draft, hold))
        details = {"job_id": record.id, "owner": record.owner, **job.parameters.for_log()}
        log.info("job accepted", extra={**details, **prompts_of(draft.reading.require())})
        return record

    def _submit(self, draft: Draft, hold: IdempotencyHold | None) -> tuple[Checked, JobRecord]:
        services = self.services
        job = self._check_and_store(draft)
        request = draft.reading.require()
        require_within(services.queue.connection, self.principal.key_id, self.principal.per_day, job.parameters)
        services.link_signer.require()  # else the answer, once the job is accepted, might not get its links
        with submitting(services.tracing, self.trace_context, job.parameters, job.delivery.priority) as span:
            record = self._queue(job, request, hold, span.context)
            span.add({"messaging.message.id": record.id})
        return job, record

    def _queue(
        self, job: Checked, request: DeliveryFields, hold: IdempotencyHold | None, context: TraceContext | None
    ) -> JobRecord:
        services = self.services
        return services.queue.submit(
            job.parameters,
            owner=self.principal.owner,
            api_key=self.principal.key_id,
            priority=job.delivery.priority,
            deadline_seconds=request.deadline_seconds,
            response_format=request.response_format,
            metadata=request.metadata,
            webhook=job.delivery.webhook,
            idempotency=hold,
            max_run_seconds=self._max_run_seconds(job),
            limits=SubmitLimits(
                services.settings.max_waiting,
                services.settings.max_waiting_per_owner,
                services.settings.max_owner_bytes,
                self.principal.quota,
                services.settings.max_owner_record_bytes,
            ),
            request_id=self.request_id,
            trace_context=context,
            counts=job.counts,
            cancel_on_disconnect=self._ends_with_client(request),
        )

    def _max_run_seconds(self, job: Checked) -> float:
        """Maximum worker time of a job; that of a training is counted exactly, since nothing predicts it."""
        settings = self.services.settings
        if job.parameters.task == JobTask.TRAINING:
            return settings.max_training_seconds
        return _RUN_FACTOR * settings.max_job_seconds

    def _ends_with_client(self, request: DeliveryFields) -> bool:
        """Whether the job is cancelled once nobody waits for it: the client's choice, or the default."""
        if request.cancel_on_disconnect is None:
            return self.is_held and self.call.key is None
        return request.cancel_on_disconnect

    def _check_and_store(self, draft: Draft) -> Checked:
        while True:
            job = draft.check(self.checks)
            self.services.admission.require_usable(job.parameters)
            job.require_worker(self.services.admission)
            problem = self.checks.predict_overtime(job.parameters)
            if problem is not None:
                raise InvalidRequest([problem])
            self.services.disk_space.require(stored_bytes(job.delivery.images))
            if self.checks.inputs.store(job.delivery.images):
                return job

    def _find(self, id: str) -> JobRecord:
        try:
            return self.services.queue.fetch(id)
        except NotFound:
            raise Gone("job", id, self.principal.owner) from None

    def view(self, record: JobRecord) -> JobView:
        """Describe a job for the principal."""
        return job_response(record, self.services.queue, self.services.storage, self.links)

    def view_new(self, record: JobRecord) -> JobView:
        """The same of a job that this call has just queued."""
        return job_response(record, self.services.queue, self.services.storage, self.links, is_new=True)


def require_completed(record: JobRecord) -> None:
    """Check that a client that waited for a job gets its images.

    Raises:
        JobDidNotComplete: the job failed or was cancelled.
        JobStillRuns: it has not ended.
    """
    match record.state:
        case JobState.COMPLETED:
            return
        case JobState.FAILED if record.error is not None:
            raise JobDidNotComplete(f"job {record.id} failed: {record.error.message}", record.error.code)
        case JobState.CANCELLED:
            raise JobDidNotComplete(f"job {record.id} was cancelled", "cancelled")
    raise JobStillRuns(f"job {record.id} is {record.state}; GET /v1/jobs/{record.id} follows it")
