"""Accepting a job: check the request, read its images, store them, queue the job, and answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import Response
from fastapi.concurrency import run_in_threadpool

from app.admission import too_long
from app.auth import Principal
from app.events.waiting import wait_for_end
from app.inputs.reader import GivenImage, InputReader, Inputs, stored_bytes
from app.job_response import job_response
from app.parsing.bodies import ReceivedBody
from app.services import Services
from app.submission.idempotency import IdempotentCall
from contracts import logs
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import DestinationRefused, DestinationUnknown, FieldProblem, Gone, InvalidRequest, NotFound
from contracts.job_view import JobView, Links
from contracts.outbound.outbox import resolve_webhook
from contracts.queue.idempotency import IdempotencyHold
from contracts.queue.limits import SubmitLimits
from contracts.queue.records import JobRecord, WebhookRecord
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.prompt_counts import PromptCounts
from contracts.requests.prompts import read_prompts
from contracts.requests.schema import JobRequest, Priority
from contracts.requests.validation import check
from contracts.uploads.loras import resolve_uploads

log = logging.getLogger(__name__)

#: How many times its maximum predicted time a job may really take: predictions are averages.
_RUN_FACTOR = 2.0


@dataclass(frozen=True)
class JobDraft:
    """A parsed request, and the images that are given with it instead of named in it, by field path."""

    request: JobRequest
    images: Mapping[str, GivenImage] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckedJob:
    """A request that passed every check: what it runs on and how, and its images in memory."""

    model: ModelSpec
    parameters: JobParameters
    images: Inputs
    priority: Priority
    webhook: WebhookRecord | None
    counts: PromptCounts | None


@dataclass(frozen=True)
class Submission:
    """One client's call that creates a job.

    Attributes:
        call: what identifies a repetition of the call.
        wait_seconds: how long the client prefers to wait for the job's end; None: not at all.
    """

    services: Services
    principal: Principal
    links: Links
    call: IdempotentCall
    wait_seconds: int | None
    request_id: str

    async def answer(self, body: ReceivedBody, draft: Callable[[], JobDraft], response: Response) -> JobView:
        """Accept a job and answer 202; or wait for its end, where the client prefers that, and answer 200.

        Args:
            body: also identifies the call for the idempotency key; released once the job is accepted.
            draft: parses the body; runs in a thread.
        """
        response.status_code = 202
        if self.wait_seconds is None:
            return await run_in_threadpool(lambda: self.view(self.accept(body.raw, draft, response)))
        record = await run_in_threadpool(lambda: self.accept(body.raw, draft, response))
        body.release()
        response.headers["Preference-Applied"] = f"wait={self.wait_seconds}"
        record = await wait_for_end(self.services.notifier, self.services.queue, record, self.wait_seconds)
        if record.state.is_final:
            response.status_code = 200
        return await run_in_threadpool(self.view, record)

    def accept(self, body: bytes, draft: Callable[[], JobDraft], response: Response) -> JobRecord:
        """Submit a job, or find the one that the same call submitted before; sets the response's headers."""
        record = self.call.run(body, response, lambda hold: self.submit(draft(), hold), self._find)
        self.services.queue.confirm(record.id)  # a repeated call too: the first one may have failed here
        response.headers["Location"] = self.links.job(record.id)
        return record

    def submit(self, draft: JobDraft, hold: IdempotencyHold | None) -> JobRecord:
        """Check a request, store its images and queue the job. A refused request leaves nothing behind.

        Raises:
            InvalidRequest: with every problem found, or because no worker has enough memory, or because the job
                would take too long.
            Conflict, QueueFull, QuotaExceeded, TooManyJobs, Unavailable: as `JobQueue.submit` says.
        """
        job, record = self.services.owner_bytes.run(self.principal.owner, lambda: self._submit(draft, hold))
        details = {"job_id": record.id, "task": record.parameters.task, "model": job.model.id}
        log.info("job accepted", extra={**details, "owner": record.owner, **_prompts_of(draft.request)})
        return record

    def _submit(self, draft: JobDraft, hold: IdempotencyHold | None) -> tuple[CheckedJob, JobRecord]:
        request, services = draft.request, self.services
        job = self._check_and_store(draft)
        services.link_signer.require()  # else the answer, once the job is accepted, might not get its links
        record = services.queue.submit(
            job.parameters,
            owner=self.principal.owner,
            priority=job.priority,
            deadline_seconds=request.deadline_seconds,
            response_format=request.response_format,
            metadata=request.metadata,
            webhook=job.webhook,
            idempotency=hold,
            max_run_seconds=_RUN_FACTOR * services.settings.max_job_seconds,
            limits=SubmitLimits(
                services.settings.max_waiting,
                services.settings.max_waiting_per_owner,
                services.settings.max_owner_bytes,
                self.principal.quota,
                services.settings.max_owner_record_bytes,
            ),
            request_id=self.request_id,
            counts=job.counts,
        )
        return job, record

    def _check_and_store(self, draft: JobDraft) -> CheckedJob:
        while True:
            job = self.check(draft)
            self.services.admission.require(job.model, job.parameters)
            problem = self.predict_overtime(job.parameters)
            if problem is not None:
                raise InvalidRequest([problem])
            self.services.disk_space.require(stored_bytes(job.images))
            if self.inputs.store(job.images):
                return job

    def check(self, draft: JobDraft) -> CheckedJob:
        """Check everything about a request that can be known before it is queued. Stores nothing.

        Raises:
            InvalidRequest: with every problem found.
            ImageTooLarge, NotAnImage, Unavailable: as `InputReader.read` says.
        """
        request = draft.request
        logs.hide(*_prompts_of(request).values(), *read_prompts(request).texts.values())
        catalogue = self._catalogue_for(request)
        model = check(request, catalogue)
        priority = self.principal.priority_of(request)
        webhook = self._resolve_webhook(request)
        images = self.inputs.read(request, draft.images)
        parameters = resolve(request, model, {path: image.stored for path, image in images.items()})
        counts = self.services.prompt_counter.count(model, parameters)
        return CheckedJob(model, resolve_uploads(parameters, catalogue), images, priority, webhook, counts)

    def predict_overtime(self, job: JobParameters) -> FieldProblem | None:
        """Why the job would take too long, as far as its time can be predicted."""
        return too_long(job, self.services.queue.eta.run_seconds(job), self.services.settings.max_job_seconds)

    @property
    def inputs(self) -> InputReader:
        """What reads and stores the images of this principal's requests."""
        services = self.services
        return InputReader(
            services.decoder,
            services.queue,
            services.storage,
            services.retention,
            self.principal.owner,
            services.fetcher,
            services.settings.max_owner_bytes,
        )

    def _catalogue_for(self, request: JobRequest) -> Catalogue:
        """With uploaded LoRAs only where the request names one, since they are read from Redis."""
        catalogue = self.services.catalogue
        loras = read_prompts(request).loras
        if not loras:
            return catalogue
        built_in = {lora.id for lora in catalogue.loras}
        if all(lora.name in built_in for _, lora in loras):
            return catalogue
        return self.services.loras.extend(catalogue, self.principal.owner)

    def _resolve_webhook(self, request: JobRequest) -> WebhookRecord | None:
        if request.webhook is None:
            return None
        try:
            return resolve_webhook(request.webhook, self.links.base, self.services.settings.outbound)
        except (DestinationRefused, DestinationUnknown) as error:
            raise InvalidRequest([FieldProblem("webhook.url", str(error))]) from None

    def _find(self, id: str) -> JobRecord:
        try:
            return self.services.queue.fetch(id)
        except NotFound:
            raise Gone("job", id, self.principal.owner) from None

    def view(self, record: JobRecord) -> JobView:
        """Describe a job for the principal."""
        return job_response(record, self.services.queue, self.services.storage, self.links)


def _prompts_of(request: JobRequest) -> dict[str, str]:
    names = ("prompt", "prompt_2", "prompt_3", "negative_prompt")
    return {name: text for name in names if (text := getattr(request, name, None)) is not None}
