"""OpenAI Images, for unmodified OpenAI clients. A call returns when its job has ended.

If the client disconnects and nobody comes back, the job is cancelled; with an `Idempotency-Key` it goes on, and
the same key returns it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.bodies import EditBodyDep, JsonBodyDep
from app.dependencies.submissions import HeldSubmissionDep
from app.dialects.openai.forms import RequestBody
from app.dialects.openai.requests import read_request
from app.dialects.openai.responses import ImagesAnswer, answer_images, completed_events, error_event, partial_event
from app.dialects.openai.schema import (
    EditRequest,
    GenerationRequest,
    ImageRequest,
    VariationRequest,
    without_images,
)
from app.dialects.openai.submission import accept_images
from app.errors import describe
from app.events.sse import HEARTBEAT, EventStream, follow_events
from app.openapi.bodies import edit_body, request_body
from app.openapi.routes import MAKING, problems, streamed
from app.parsing.requests import Reading
from app.submission.submit import Submission, require_completed
from contracts.errors import DarkroomError
from contracts.jobs.events import Preview
from contracts.jobs.records import JobRecord
from contracts.views.job import JobView

router = APIRouter(prefix="/v1/images", tags=["openai"])
_DOCUMENTED: dict[str, Any] = {
    "response_model": None,
    "responses": {
        **streamed(ImagesAnswer, "The finished images; with `stream`, server-sent events"),
        **problems(*MAKING, 502, 504),
    },
}


@router.post("/generations", openapi_extra=request_body(GenerationRequest), **_DOCUMENTED)
async def generate_images(
    body: JsonBodyDep, submission: HeldSubmissionDep, response: Response
) -> ImagesAnswer | Response:
    """Generate images from a prompt, as OpenAI clients do; accepts every field of a txt2img job too."""
    reading = read_request(GenerationRequest, body.raw)
    return await _answer("image_generation", reading, RequestBody(body.raw, received=body), submission, response)


@router.post("/edits", openapi_extra=edit_body(EditRequest), **_DOCUMENTED)
async def edit_image(
    body: EditBodyDep, submission: HeldSubmissionDep, response: Response
) -> ImagesAnswer | Response:
    """Generate images from a prompt and an image, as OpenAI clients do; opaque parts of a mask are kept."""
    return await _answer("image_edit", read_request(EditRequest, body.json), body, submission, response)


@router.post("/variations", openapi_extra=edit_body(VariationRequest), **_DOCUMENTED)
async def vary_image(
    body: EditBodyDep, submission: HeldSubmissionDep, response: Response
) -> ImagesAnswer | Response:
    """Generate images like a given one, as OpenAI clients do: an img2img job without a prompt."""
    reading = read_request(VariationRequest, body.json)
    return await _answer("image_variation", reading, body, submission, response)


async def _answer(
    name: str, reading: Reading[Any], body: RequestBody, submission: Submission, response: Response
) -> ImagesAnswer | Response:
    """Accept the job; answer when it has ended, or stream its events."""
    services = submission.services
    request: ImageRequest = reading.requests[0]

    record = await run_in_threadpool(accept_images, submission, reading, body.json, body.files, response)
    body.release()
    request = without_images(request)
    if request.stream:
        events = _stream(name, request, record, submission)
        stream = EventStream(events)
        stream.headers.update(response.headers)
        return stream
    record = await submission.wait(record, services.settings.hold_seconds)
    require_completed(record)
    return answer_images(request.quality, record, await _view(record, submission))


async def _view(record: JobRecord, submission: Submission) -> JobView:
    return await run_in_threadpool(submission.view, record)


async def _stream(
    name: str, request: ImageRequest, record: JobRecord, submission: Submission
) -> AsyncIterator[str]:
    """Yield the job's previews as they arrive, then its images or its error."""
    services = submission.services
    numbers = [0] * record.parameters.num_images
    pause_seconds = services.settings.heartbeat_seconds
    with services.attendance.attending(record):
        async for event in follow_events(services.notifier, services.queue, record.id, "0", pause_seconds):
            if event is None:
                yield HEARTBEAT
            elif event.kind == "preview":
                preview = Preview.model_validate(event.data)
                number = numbers[preview.index]
                yield await run_in_threadpool(partial_event, name, request, record, preview, number)
                numbers[preview.index] += 1
    try:
        record = await run_in_threadpool(services.queue.fetch, record.id)
        require_completed(record)
        for text in completed_events(name, request, record, await _view(record, submission)):
            yield text
    except DarkroomError as error:
        yield error_event(describe(error))
    await run_in_threadpool(submission.settle, record)
