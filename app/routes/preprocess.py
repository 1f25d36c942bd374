"""The route that makes a control image: at once and stored nowhere, or in a job where a model makes it."""

from __future__ import annotations

import base64
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, RootModel
from starlette.concurrency import run_in_threadpool

from app.dependencies.bodies import JsonBodyDep
from app.dependencies.submissions import ChecksDep, WaitingSubmissionDep
from app.openapi.bodies import preprocess_body
from app.openapi.routes import MAKING, problems
from app.parsing.bodies import ReceivedBody
from app.parsing.json_bodies import check_json
from app.parsing.requests import from_json_or_none, read
from app.submission.checks import RequestChecks
from app.submission.plain.preprocessing import ControlImageDraft
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.requests.images.preprocess_request import PreprocessRequest
from contracts.requests.images.preprocessing import own_resolution, preprocess_problems, resolve_options
from contracts.requests.plain.preprocessing import ControlImageRequest
from contracts.views.job import JobView

router = APIRouter(prefix="/v1", tags=["catalogue"])


class ControlImageView(BaseModel):
    """A control image."""

    object: Literal["control_image"] = Field(description="Always `control_image`.")
    preprocess: str = Field(description="The preprocessor.")
    preprocess_options: dict[str, float] = Field(
        description="All options that were used; a control with the same options uses exactly this image."
    )
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    sha256: str = Field(
        description="SHA-256 of the file; a job's receipt has it in the storage key of the control's `image`."
    )
    b64_json: str = Field(description="The control image, a PNG file in base64.")


class ControlImageAnswer(RootModel[ControlImageView | JobView]):
    """A control image, or the job of a preprocessor that is a model."""


@router.post(
    "/preprocess",
    name="create_control_image",
    response_model=ControlImageAnswer,
    openapi_extra=preprocess_body(),
    responses={
        200: {"description": "The control image, or its finished job (with `Prefer: wait`)"},
        202: {"model": JobView, "description": "The job of a preprocessor that is a model"},
        **problems(*MAKING),
    },
)
async def preprocess(
    body: JsonBodyDep, checks: ChecksDep, submission: WaitingSubmissionDep, response: Response
) -> ControlImageView | JobView:
    """Make a control image of an ordinary one, as a control with the same `preprocess` and options does.

    A preprocessor that is a model runs in a job: the answer is that of other routes that create jobs.
    """
    if await run_in_threadpool(_needs_job, body.raw, checks.services.catalogue):
        return await submission.answer(
            body, lambda: ControlImageDraft(read(ControlImageRequest, body.raw)), response
        )
    return await run_in_threadpool(_make, body, checks)


def _needs_job(raw: bytes, catalogue: Catalogue) -> bool:
    """Whether a body names a preprocessor that is a model, or asks for a job by its task."""
    check_json(raw)
    given = from_json_or_none(raw)
    if not isinstance(given, dict):
        return False
    return "task" in given or given.get("preprocess") in [row.id for row in catalogue.preprocessors]


def _make(body: ReceivedBody, checks: RequestChecks) -> ControlImageView:
    reading = read(PreprocessRequest, body.raw).with_problems(
        lambda request: list(preprocess_problems("", request.preprocess, request.preprocess_options))
    )
    request = reading.require()
    image = checks.inputs.find("image", request.image)
    row, size = PREPROCESSORS[request.preprocess], image.stored.size
    options = resolve_options(row, request.preprocess_options, own_resolution(size))
    made = checks.inputs.make_map("image", image, request.preprocess, options)
    return ControlImageView(
        object="control_image",
        preprocess=request.preprocess,
        preprocess_options=options,
        width=made.width,
        height=made.height,
        sha256=made.sha256,
        b64_json=base64.b64encode(made.data).decode("ascii"),
    )
