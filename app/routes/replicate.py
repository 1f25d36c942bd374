"""Replicate's predictions, for unmodified Replicate clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, EventsJobDep, OwnJobDep, PrincipalDep
from app.dependencies.bodies import JsonBodyDep
from app.dependencies.queries import PageDep
from app.dependencies.services import LinksDep, ServicesDep
from app.dependencies.submissions import WaitingSubmissionDep
from app.dialects.field_names import named_as_sent
from app.dialects.replicate.events import stream_prediction
from app.dialects.replicate.models import find_model, version_id, version_of
from app.dialects.replicate.requests import model_of, translate
from app.dialects.replicate.schema import (
    ModelPredictionRequest,
    PredictionList,
    PredictionRequest,
    ReplicateSecret,
)
from app.job_response import encoded_images
from app.openapi.bodies import request_body
from app.openapi.routes import MAKING, accepted, events_of, problems
from app.parsing.bodies import ReceivedBody
from app.parsing.requests import parse
from app.services import Services
from app.submission.checks import JobDraft
from app.submission.submit import Submission
from contracts.auth.api_keys import Scope
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.records import JobRecord
from contracts.queue import listing
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.views.links import Links
from contracts.views.prediction import PREDICTIONS_PATH, PredictionView, view_prediction

router = APIRouter(prefix="/replicate/v1", tags=["replicate"])
#: The event stream of a prediction, which a signed link opens without an API key.
stream_router = APIRouter(prefix="/replicate/v1", tags=["replicate"])

_CancelAfter = Annotated[
    str | None,
    Header(
        description="Time after which a prediction that has not ended fails: `90s`, `5m`, `1h`. Default: no limit."
    ),
]
_CREATED: dict[str, Any] = {
    "status_code": 201,
    "responses": {
        201: accepted(PredictionView)[202]
        | {"description": "The prediction; with `Prefer: wait` once it has ended"},
        **problems(*MAKING, 404),
    },
}


@router.post("/predictions", name="submit_prediction", openapi_extra=request_body(PredictionRequest), **_CREATED)
async def submit_prediction(
    body: JsonBodyDep, submission: WaitingSubmissionDep, response: Response, cancel_after: _CancelAfter = None
) -> PredictionView:
    """Create a prediction of a version of a model, as Replicate's clients do."""

    def read() -> tuple[ModelPredictionRequest, ModelSpec]:
        request = parse(PredictionRequest, body.raw)
        return request, model_of(request, submission.services.catalogue)

    return await _create(read, body, submission, response, cancel_after)


@router.post(
    "/models/{owner}/{name}/predictions",
    name="submit_model_prediction",
    openapi_extra=request_body(ModelPredictionRequest),
    **_CREATED,
)
async def submit_model_prediction(
    owner: Annotated[str, Path(description="Owner of the model: `darkroom`.")],
    name: Annotated[str, Path(description="Id of the model, from `/v1/models`.")],
    body: JsonBodyDep,
    submission: WaitingSubmissionDep,
    response: Response,
    cancel_after: _CancelAfter = None,
) -> PredictionView:
    """Create a prediction of a model, as Replicate's clients do."""
    model = find_model(owner, name, submission.services.catalogue)
    return await _create(
        lambda: (parse(ModelPredictionRequest, body.raw), model), body, submission, response, cancel_after
    )


async def _create(
    read: Callable[[], tuple[ModelPredictionRequest, ModelSpec]],
    body: ReceivedBody,
    submission: Submission,
    response: Response,
    cancel_after: str | None,
) -> PredictionView:
    """Accept the job; answer at once, or when it has ended, as the client prefers."""

    def accept() -> JobRecord:
        request, model = read()
        translation = translate(request, model, submission.links.base, cancel_after)
        draft = JobDraft(translation.reading, prediction_version=version_id(model))
        with named_as_sent(translation.name_of):
            return submission.accept(body.raw, lambda: draft, response)

    record = await run_in_threadpool(accept)
    body.release()
    if submission.wait_seconds is None:
        return await run_in_threadpool(_view, record, submission.services, submission.links)
    record = await submission.wait(record, submission.wait_seconds)
    response.headers["Preference-Applied"] = f"wait={submission.wait_seconds}"
    view = await run_in_threadpool(_view, record, submission.services, submission.links)
    # Their client takes any other status in this answer for the end, even without an output.
    return view if record.state.is_final else view.model_copy(update={"status": "starting"})


@router.get("/predictions", name="list_predictions", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_predictions(
    page: PageDep, services: ServicesDep, principal: PrincipalDep, links: LinksDep
) -> PredictionList:
    """List your jobs as predictions, newest first; those of other APIs are among them."""
    found = listing.list_jobs(services.queue, principal.owner, listing.Filter(), page.limit, page.after)
    cursor = None if found.next is None else f"?limit={page.limit}&cursor={found.next.write()}"
    return PredictionList(
        next=None if cursor is None else f"{links.base}{PREDICTIONS_PATH}{cursor}",
        results=[view_prediction(job, _version(job, services), links) for job in found.jobs],
    )


@router.get("/predictions/{id}", name="show_prediction", responses=problems(404, 410, 503))
def show_prediction(record: OwnJobDep, services: ServicesDep, links: LinksDep) -> PredictionView:
    """Show a prediction as it is now."""
    services.attendance.release(record)  # the client has come back for it, and knows its id
    return _view(record, services, links)


@router.post(
    "/predictions/{id}/cancel",
    name="cancel_prediction",
    dependencies=[GENERATE_ONLY],
    responses=problems(403, 404, 409, 410, 429, 503),
)
def cancel_prediction(record: OwnJobDep, services: ServicesDep, links: LinksDep) -> PredictionView:
    """Cancel a prediction: immediately while it waits, within one denoising step while it runs. Idempotent."""
    return _view(services.queue.cancel(record.id), services, links)


@stream_router.get(
    "/predictions/{id}/stream",
    name="stream_prediction_events",
    response_class=Response,
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={
        **events_of(
            "Server-sent events: `logs` with each step, `output` with the URL of each image, `error`, and finally "
            "`done`",
            {"reason": "canceled"},
            "done",
        ),
        **problems(401, 403, 404, 410, 421, 422, 503),
    },
)
async def stream_prediction_events(
    record: EventsJobDep,
    services: ServicesDep,
    links: LinksDep,
    expires: Annotated[
        str | None, Query(description="Expiry time of a signed link, in Unix seconds. Default: no link.")
    ] = None,
    signature: Annotated[str | None, Query(description="Signature of a signed link. Default: no link.")] = None,
) -> Response:
    """Stream a prediction's events: those so far, then each as it happens, up to its end."""
    del expires, signature  # declared for the OpenAPI document; EventsJobDep checks the whole query
    return await services.attendance.stream(record, stream_prediction(services, record, links))


@router.get("/webhooks/default/secret", name="show_default_webhook_secret", responses=problems(403, 503))
def show_default_webhook_secret(
    services: ServicesDep, principal: PrincipalDep, response: Response
) -> ReplicateSecret:
    """Show the secret that signs the webhooks of your predictions; it is the one of the native API."""
    principal.require(Scope.GENERATE)
    response.headers["Cache-Control"] = "no-store"
    with redis_errors_are_unavailable():
        return ReplicateSecret(key=services.webhook_secrets.current(principal.owner)[0].write())


def _view(record: JobRecord, services: Services, links: Links) -> PredictionView:
    encoded = encoded_images(record, services.storage)
    return view_prediction(record, _version(record, services), links, encoded=encoded)


def _version(record: JobRecord, services: Services) -> str:
    return version_of(record.parameters.model, services.catalogue)
