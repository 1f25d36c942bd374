"""Hugging Face's text-to-image and image-to-image calls, for unmodified inference clients.

A call answers with the bytes of the image when its job has ended. If the client disconnects and nobody comes back,
the job is cancelled.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.bodies import InferenceBodyDep
from app.dependencies.submissions import HeldSubmissionDep
from app.dialects.field_names import named_as_sent
from app.dialects.huggingface.requests import HuggingFaceRequest, translate
from app.openapi.bodies import request_body
from app.openapi.routes import MAKING, image_answer, problems
from app.parsing.bodies import ReceivedBody
from app.submission.checks import JobDraft
from app.submission.submit import Submission, require_completed
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.jobs.records import JobRecord

router = APIRouter(prefix="/hf", tags=["huggingface"])

_Accept = Annotated[
    str,
    Header(description="Format of the image: `image/png`, `image/jpeg` or `image/webp`. Default: PNG."),
]
_ModelId = Annotated[str, Path(description="Id of the model, from `/v1/models`.")]
_DOCUMENTED: dict[str, Any] = {
    "response_class": Response,
    "openapi_extra": request_body(HuggingFaceRequest),
    "responses": {
        **image_answer("The image file; `Location` names its job, `X-Seed` is its seed"),
        **problems(*MAKING, 404, 502, 504),
    },
}


@router.post("", name="run_default_model", **_DOCUMENTED)
async def run_default_model(
    body: InferenceBodyDep, submission: HeldSubmissionDep, response: Response, accept: _Accept = "*/*"
) -> Response:
    """Generate an image with the default model, as Hugging Face's inference clients do."""
    return await _answer(body, None, accept, submission, response)


@router.post("/models/{id:path}", name="run_model", **_DOCUMENTED)
@router.post("/{id}", name="run_named_model", **_DOCUMENTED)
async def run_model(
    id: _ModelId,
    body: InferenceBodyDep,
    submission: HeldSubmissionDep,
    response: Response,
    accept: _Accept = "*/*",
) -> Response:
    """Generate an image with this model, as Hugging Face's inference clients do."""
    return await _answer(body, id, accept, submission, response)


async def _answer(
    body: ReceivedBody, model_id: str | None, accept: str, submission: Submission, response: Response
) -> Response:
    """Accept the job, and answer with its image when it has ended."""
    record = await run_in_threadpool(_accept_job, body, model_id, accept, submission, response)
    body.release()
    record = await submission.wait(record, submission.services.settings.hold_seconds)
    require_completed(record)
    return await run_in_threadpool(_image_of, record, submission, response)


def _accept_job(
    body: ReceivedBody, model_id: str | None, accept: str, submission: Submission, response: Response
) -> JobRecord:
    catalogue = submission.services.catalogue
    model = catalogue.model(model_id or catalogue.default_model)
    if model.family_spec.makes_layers:
        message = (
            f"{model.id} makes several layers, and the answer here is one image; POST /v1/edit has all of them"
        )
        raise InvalidRequest([FieldProblem("model", message)])
    translation = translate(body.raw, model_id, accept)
    with named_as_sent(translation.name_of):
        return submission.accept(body.raw, lambda: JobDraft(translation.reading), response)


def _image_of(record: JobRecord, submission: Submission, response: Response) -> Response:
    image = record.images[0]
    try:
        data = submission.services.storage.read(image.key)
    except NotFound:
        raise NotFound("image", f"{record.id}/0") from None
    headers = {**response.headers, "X-Seed": str(image.seed), "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type=f"image/{image.format}", headers=headers)
