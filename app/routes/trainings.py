"""The route of trainings. What it creates is a job, which the routes of jobs show, follow and cancel."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Response

from app.dependencies.bodies import TrainingBody, TrainingBodyDep
from app.dependencies.submissions import SubmissionDep
from app.openapi.bodies import training_body
from app.openapi.routes import MAKING, accepted, problems
from app.submission.training import TrainingDraft
from contracts.requests.training.request import TrainingRequest
from contracts.views.job import JobView

router = APIRouter(prefix="/v1", tags=["trainings"])


@router.post(
    "/trainings",
    status_code=202,
    openapi_extra=training_body(TrainingRequest),
    responses={**accepted(JobView), **problems(*MAKING)},
)
async def create_training(body: TrainingBodyDep, submission: SubmissionDep, response: Response) -> JobView:
    """Train a LoRA, a textual inversion or a ControlNet on your images, while the workers have nothing else to do.

    Send JSON with `images`; or a form with a zip file of images in the field `file`, and the other fields as JSON
    in the field `request`. The answer is a job. Its events have the loss of each step and sample images; once it
    is `completed`, its receipt names the result, which your next request can use. With `resume_from` it
    continues an earlier training.
    """
    services = submission.services

    def draft() -> TrainingDraft:
        return TrainingDraft.of(body.request, body.archive, services, submission.principal.owner)

    def create() -> JobView:
        return submission.view_new(submission.accept(_identity_of(body), draft, response))

    # One at a time: it has all of its images in memory.
    return await services.file_checks.run(submission.principal.owner, create)


def _identity_of(body: TrainingBody) -> bytes:
    """What must be equal for a call to be the same."""
    if body.archive is None:
        return body.request
    with body.archive.open("rb") as file:
        return body.request + hashlib.file_digest(file, "sha256").digest()
