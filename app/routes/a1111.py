"""AUTOMATIC1111's web UI API: images, their progress, and options. A call returns when its job has ended.

If the client disconnects and nobody comes back, the job is cancelled, as on OpenAI's routes.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import GENERATE_ONLY, PrincipalDep
from app.dependencies.bodies import JsonBodyDep
from app.dependencies.queries import null_means
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import HeldSubmissionDep
from app.dialects.a1111.options import (
    A1111Options,
    A1111OptionsRequest,
    given_options,
    model_problems,
    show_options,
)
from app.dialects.a1111.png_info import A1111PngInfo, A1111PngInfoRequest, read_png_info
from app.dialects.a1111.requests import Translator, read_request, without_images
from app.dialects.a1111.responses import A1111Done, A1111Images, A1111Progress, answer_images, answer_progress
from app.dialects.a1111.schema import A1111Img2ImgRequest, A1111Request, A1111Txt2ImgRequest
from app.dialects.a1111.sent_names import WORDS, sent_name
from app.dialects.field_names import named_as_sent
from app.openapi.bodies import request_body
from app.openapi.routes import MAKING, problems
from app.parsing.bodies import ReceivedBody
from app.parsing.requests import parse
from app.services import Services
from app.submission.checks import JobDraft
from app.submission.submit import Submission, require_completed
from contracts.errors import Conflict, InvalidRequest, NotFound
from contracts.jobs.events import latest_preview
from contracts.jobs.records import JobRecord
from contracts.queue.running import running_jobs
from contracts.redis.connection import redis_errors_are_unavailable

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])
_DOCUMENTED: dict[str, Any] = {"responses": problems(*MAKING, 502, 504)}
_SkipImage = Annotated[bool, Query(description="Leave out `current_image`."), null_means(False, bool)]


@router.post(
    "/txt2img", name="generate_a1111_images", openapi_extra=request_body(A1111Txt2ImgRequest), **_DOCUMENTED
)
async def generate_images(body: JsonBodyDep, submission: HeldSubmissionDep, response: Response) -> A1111Images:
    """Generate images from a prompt, as clients of AUTOMATIC1111's web UI do."""
    return await _answer(A1111Txt2ImgRequest, body, submission, response)


@router.post("/img2img", name="edit_a1111_image", openapi_extra=request_body(A1111Img2ImgRequest), **_DOCUMENTED)
async def edit_image(body: JsonBodyDep, submission: HeldSubmissionDep, response: Response) -> A1111Images:
    """Generate images from a prompt and an image; with a mask only what is white in it changes."""
    return await _answer(A1111Img2ImgRequest, body, submission, response)


async def _answer(
    kind: type[A1111Request], body: ReceivedBody, submission: Submission, response: Response
) -> A1111Images:
    """Accept the job; answer when it has ended."""
    request, record = await run_in_threadpool(_accept, kind, body.raw, submission, response)
    body.release()
    record = await submission.wait(record, submission.services.settings.hold_seconds)
    require_completed(record)
    view = await run_in_threadpool(submission.view, record)
    return await run_in_threadpool(answer_images, request, record, view)


def _accept(
    kind: type[A1111Request], raw: bytes, submission: Submission, response: Response
) -> tuple[A1111Request, JobRecord]:
    """Submit the job; return the request without its images, and the job."""
    services = submission.services
    reading = read_request(kind, raw)
    stored = services.caller_options.read(submission.principal.key_id)
    translator = Translator(services.catalogue, stored, submission.checks.inputs)
    request = reading.requests[0]
    with named_as_sent(partial(sent_name, request), WORDS):
        record = submission.accept(raw, lambda: JobDraft(*translator.draft(reading)), response)
    return without_images(request), record


@router.get("/progress", name="show_a1111_progress", responses=problems(503))
def show_progress(
    services: ServicesDep, principal: PrincipalDep, skip_current_image: _SkipImage = False
) -> A1111Progress:
    """Show the progress of your most recently started running job."""
    running = running_jobs(services.queue, principal.owner)
    if not running:
        return answer_progress(running, None, None)
    preview = None
    if not skip_current_image:
        with redis_errors_are_unavailable():
            preview = latest_preview(services.queue.connection, running[0].id)
    return answer_progress(running, services.queue.eta.position(running[0]), preview)


@router.post(
    "/interrupt", name="interrupt_a1111_jobs", dependencies=[GENERATE_ONLY], responses=problems(403, 429, 503)
)
def interrupt(services: ServicesDep, principal: PrincipalDep) -> A1111Done:
    """Cancel your running jobs, including those sent through other APIs; waiting ones stay."""
    return _cancel_running(services, principal.owner)


@router.post("/skip", name="skip_a1111_jobs", dependencies=[GENERATE_ONLY], responses=problems(403, 429, 503))
def skip(services: ServicesDep, principal: PrincipalDep) -> A1111Done:
    """Cancel your running jobs, as `interrupt` does."""
    return _cancel_running(services, principal.owner)


def _cancel_running(services: Services, owner: str) -> A1111Done:
    for job in running_jobs(services.queue, owner):
        with suppress(Conflict, NotFound):  # it has just ended
            services.queue.cancel(job.id)
    return A1111Done()


@router.get("/options", name="show_a1111_options", responses=problems(503))
def show_your_options(services: ServicesDep, principal: PrincipalDep) -> A1111Options:
    """Show your options."""
    return show_options(services.caller_options.read(principal.key_id), services.catalogue.default_model)


@router.post(
    "/options",
    name="update_a1111_options",
    openapi_extra=request_body(A1111OptionsRequest),
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503),
)
def update_options(body: JsonBodyDep, services: ServicesDep, principal: PrincipalDep) -> None:
    """Set options for the later calls of your API key; those of others stay as they are."""
    options = parse(A1111OptionsRequest, body.raw)
    wrong = model_problems(options, services.catalogue)
    if wrong:
        raise InvalidRequest(wrong)
    services.caller_options.set(principal.key_id, given_options(options, services.catalogue))


@router.post(
    "/png-info",
    name="read_a1111_parameters",
    openapi_extra=request_body(A1111PngInfoRequest),
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503),
)
def read_parameters(body: JsonBodyDep, services: ServicesDep) -> A1111PngInfo:
    """Read the parameters inside a PNG, JPEG or WebP file; without any, they are empty."""
    return read_png_info(parse(A1111PngInfoRequest, body.raw), services.decoder)
