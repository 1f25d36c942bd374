"""What the service sends to a request's webhook. For the OpenAPI document only: no call is answered here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from app.openapi.bodies import request_body
from app.openapi.routes import operation_id
from contracts.requests.schema import WebhookEvent
from contracts.views.job import JobView

router = APIRouter(tags=["webhooks"], generate_unique_id_function=operation_id)


@router.post(
    "job",
    status_code=204,
    openapi_extra=request_body(JobView),
    response_description="Any 2xx status: delivered",
    responses={
        410: {"description": "The receiver wants no more attempts: the message is dropped"},
        "default": {
            "description": "Any other status, also a redirect: the message is sent again, after `Retry-After`"
        },
    },
)
def receive_event(
    webhook_id: Annotated[
        str,
        Header(description="Id of the message, the same for each attempt; a message may arrive more than once."),
    ],
    webhook_timestamp: Annotated[int, Header(description="Time of the attempt, in Unix seconds.")],
    webhook_signature: Annotated[
        str,
        Header(
            description="`v1,…` as in Standard Webhooks; two signatures for a day after the secret was replaced."
        ),
    ],
    darkroom_event: Annotated[WebhookEvent, Header(description="The event: what happened to the job.")],
) -> None:
    """An event of a job. The body is the job as it was then, without `b64_json`."""
