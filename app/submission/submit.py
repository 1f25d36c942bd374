"""The way of every call that makes a job: check, store, queue; then the answer, at once or at the job's end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Response
from fastapi.concurrency import run_in_threadpool

from app.auth import Principal
from app.events.notifier import JobNotifier
from app.events.waiting import wait_for_end
from app.inputs.reader import InputReader, Inputs
from app.job_response import job_response
from app.submission.admission import Admission
from contracts import logs
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import (
    DestinationRefused,
    DestinationUnknown,
    FieldProblem,
    Gone,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from contracts.job_view import JobView, Links
from contracts.outbound.outbox import resolve_webhook
from contracts.queue.client import IdempotencyHold, JobQueue
from contracts.queue.idempotency import Call, Idempotency
from contracts.queue.records import JobRecord, WebhookRecord
from contracts.requests.parameters import JobParameters
from contracts.requests.resolution import StoredImage, resolve
from contracts.requests.schema import JobRequest, Priority
from contracts.requests.validation import check
from contracts.settings import OutboundSettings
from contracts.storage import Storage
from contracts.uploads.loras import LoraRegistry, resolve_uploads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A request, and those of its pictures that lie in the storage already, by field path."""

    request: JobRequest
    kept: Mapping[str, StoredImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """An order that may be queued."""

    model: ModelSpec
    parameters: JobParameters
    pictures: Inputs
    priority: Priority
    webhook: WebhookRecord | None


@dataclass(frozen=True)
class Submission:
    """One caller's call.

    Attributes:
        outbound: where a webhook may go.
        prospects: what the workers can run.
        max_waiting: jobs that may wait in all.
        wait_seconds: how long the client prefers to wait for the job's end; None: not at all.
        request_id: of the call, for the job's record and the logs.
        call: what must not be done twice; None where the client names no idempotency key.
    """

    catalogue: Catalogue
    shelf: LoraRegistry
    inputs: InputReader
    queue: JobQueue
    storage: Storage
    bells: JobNotifier
    links: Links
    caller: Principal
    outbound: OutboundSettings
    prospects: Admission
    wait_seconds: int | None
    max_waiting: int
    idempotency: Idempotency
    call: Call | None
    request_id: str

    async def answer(self, order: Callable[[], Order], response: Response) -> JobView:
        """Accept what `order` makes, and say so: 202, or 200 with a job that has ended."""
        response.status_code = 202
        if self.wait_seconds is None:
            return await run_in_threadpool(lambda: self._display(self._accept_once(order, response)))
        record = await self.accept(order, response)
        response.headers["Preference-Applied"] = f"wait={self.wait_seconds}"
        record = await wait_for_end(self.bells, self.queue, record, self.wait_seconds)
        if record.state.is_final:
            response.status_code = 200
        return await run_in_threadpool(self._display, record)

    async def accept(self, order: Callable[[], Order], response: Response) -> JobRecord:
        """Accept what `order` makes, or find what an earlier call made; the headers tell which."""
        return await run_in_threadpool(self._accept_once, order, response)

    def _display(self, record: JobRecord) -> JobView:
        return job_response(record, self.queue, self.storage, self.links)

    def _accept_once(self, order: Callable[[], Order], response: Response) -> JobRecord:
        record, is_replay = self._find_or_accept(order)
        if is_replay:
            response.headers["Idempotency-Replayed"] = "true"
        response.headers["Location"] = self.links.job(record.id)
        return record

    def _find_or_accept(self, order: Callable[[], Order]) -> tuple[JobRecord, bool]:
        """The job, and whether an earlier call made it."""
        if self.call is None:
            return self._accept(order, None), False
        held = self.idempotency.hold(self.call)
        if isinstance(held, str):
            return self._made_before(held), True
        try:
            return self._accept(order, held), False
        except BaseException:
            with suppress(Unavailable):  # else its lease runs out
                self.idempotency.release(held)
            raise

    def _made_before(self, id: str) -> JobRecord:
        try:
            return self.queue.fetch(id)
        except NotFound:
            raise Gone("job", id, self.caller.owner) from None

    def prepare(self, order: Order) -> Prepared:
        """Hold an order against everything that data can tell; nothing is stored or queued.

        Raises:
            InvalidRequest: with every problem found.
            PictureTooLarge, NotAPicture, Unavailable: as `InputReader.read` says.
        """
        logs.hide(*_prompts_of(order.request).values())
        catalogue = self._catalogue_for(order.request)
        model = check(order.request, catalogue)
        priority = self.caller.grant(order.request)
        webhook = self._address_webhook(order.request)
        pictures = self.inputs.read(order.request, order.kept)
        parameters = resolve(order.request, model, {path: one.stored for path, one in pictures.items()})
        return Prepared(model, resolve_uploads(parameters, catalogue), pictures, priority, webhook)

    def _accept(self, order: Callable[[], Order], once: IdempotencyHold | None) -> JobRecord:
        made = order()
        request, prepared = made.request, self.prepare(made)
        self.prospects.require(prepared.model, prepared.parameters)
        record = self.queue.submit(
            self.inputs.store(prepared.pictures, prepared.parameters),
            owner=self.caller.owner,
            priority=prepared.priority,
            deadline_seconds=request.deadline_seconds,
            response_format=request.response_format,
            metadata=request.metadata,
            webhook=prepared.webhook,
            once=once,
            max_waiting=self.max_waiting,
            quota=self.caller.quota,
            request_id=self.request_id,
        )
        # Waited for or not, this line is what leads from a request to its job.
        about = {"job_id": record.id, "task": record.parameters.task, "model": prepared.model.id}
        log.info("job accepted", extra={**about, "owner": record.owner, **_prompts_of(request)})
        return record

    def _catalogue_for(self, request: JobRequest) -> Catalogue:
        """With the caller's adapters, where the request names one that is not the operator's own."""
        known = {row.id for row in self.catalogue.loras}
        if all(lora.name in known for lora in request.loras):
            return self.catalogue
        return self.shelf.extend(self.catalogue, self.caller.owner)

    def _address_webhook(self, request: JobRequest) -> WebhookRecord | None:
        if request.webhook is None:
            return None
        try:
            return resolve_webhook(request.webhook, self.links.base, self.outbound)
        except (DestinationRefused, DestinationUnknown) as error:
            raise InvalidRequest([FieldProblem("webhook.url", str(error))]) from None


def _prompts_of(request: JobRequest) -> dict[str, str]:
    """The client's own words; which logs show them is not known here."""
    names = ("prompt", "prompt_2", "prompt_3", "negative_prompt")
    return {name: text for name in names if (text := getattr(request, name, None)) is not None}
