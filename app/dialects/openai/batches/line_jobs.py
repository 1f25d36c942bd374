"""A line of a batch as a job: how it is submitted, and the answer that it gets. Knows nothing of rounds."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Response

from app.auth import Principal
from app.dialects.openai.batches.lines import LineRequest
from app.dialects.openai.batches.results import ResultFiles, request_id
from app.dialects.openai.requests import read_request
from app.dialects.openai.responses import answer_images
from app.dialects.openai.schema import EditRequest, GenerationRequest, ImageRequest
from app.dialects.openai.submission import accept_images
from app.services import Services
from app.submission.idempotency import IdempotentCall
from app.submission.retries import ClientRetry
from app.submission.submit import Submission, require_completed
from contracts.batches.records import Batch, StartedLine
from contracts.errors import FieldProblem, Gone
from contracts.jobs.records import JobRecord
from contracts.requests.schema import Priority
from contracts.views.links import Links

_KINDS: Mapping[str, type[ImageRequest]] = {
    "/v1/images/generations": GenerationRequest,
    "/v1/images/edits": EditRequest,
}


class LineJobs:
    """The jobs of all batches' lines."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def submit(self, batch: Batch, principal: Principal, number: int, request: LineRequest) -> StartedLine:
        """Create the job of a line, or find the one that was created for it before.

        Raises:
            DarkroomError: as the same call by itself, and where the request does not suit a batch.
        """
        raw = request.raw_body()
        reading = read_request(_KINDS[batch.endpoint], raw).with_problems(_unfit)
        record = accept_images(self._submission(batch, principal, number), reading, raw, {}, Response())
        return StartedLine(job=record.id, custom_id=request.custom_id, quality=reading.requests[0].quality)

    def add_answer(
        self, batch: Batch, number: int, line: StartedLine, record: JobRecord | None, results: ResultFiles
    ) -> None:
        """Add the answer to a line, whose job has ended, to the results; `record` None: it is gone.

        Raises:
            Gone: the job or an image has expired, or was deleted.
            JobDidNotComplete: the job failed or was cancelled.
        """
        if record is None:
            raise Gone("job", line.job, batch.owner)
        require_completed(record)
        view = self._submission(batch, Principal(owner=batch.owner), number).view(record)
        if record.response_format == "b64_json" and any(image.b64_json is None for image in view.images):
            raise Gone("job", line.job, batch.owner)
        results.add_answer(number, line.custom_id, answer_images(line.quality, record, view))

    def _submission(self, batch: Batch, principal: Principal, number: int) -> Submission:
        services = self._services
        key = f"{batch.id}:{number}"
        return Submission(
            services=services,
            principal=principal,
            links=Links(batch.base, services.link_signer),
            call=IdempotentCall(services.idempotency, batch.owner, f"POST {batch.endpoint}", key),
            wait_seconds=None,
            is_held=False,
            retry=ClientRetry(services.retries, services.queue, batch.owner, None),
            client_left=_nobody_waits,
            request_id=request_id(batch.id, number),
            trace_context=None,
        )


async def _nobody_waits() -> None:
    """No client is connected."""


def _unfit(request: ImageRequest) -> list[FieldProblem]:
    """What is wrong with a request only because it is in a batch."""
    problems = []
    if request.stream:
        problems.append(FieldProblem("stream", "must be false in a batch, whose results are in a file", [False]))
    if request.priority is not Priority.LOW:
        problems.append(FieldProblem("priority", f"must be low in a batch, got {request.priority}", ["low"]))
    if request.cancel_on_disconnect:
        message = "must be false in a batch: no client stays connected"
        problems.append(FieldProblem("cancel_on_disconnect", message, [False]))
    return problems
