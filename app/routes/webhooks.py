"""What the service sends to a request's `webhook`: for the OpenAPI document alone; nobody is answered here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from app.openapi.routes import request_body
from contracts.job_view import JobView
from contracts.requests.schema import WebhookEvent

router = APIRouter(tags=["webhooks"])


@router.post(
    "job",
    status_code=204,
    openapi_extra=request_body(JobView),
    response_description="Any 2xx: delivered",
    responses={
        410: {"description": "Nothing more is wanted: the message is given up"},
        "default": {"description": "A redirect too: sent again, after `Retry-After` where it says so"},
    },
)
def tell(
    webhook_id: Annotated[str, Header(description="the same at each attempt; a message may come twice")],
    webhook_timestamp: Annotated[int, Header(description="of the attempt, Unix seconds")],
    webhook_signature: Annotated[
        str,
        Header(description="`v1,…` by Standard Webhooks; two of them for a day after the secret was replaced"),
    ],
    darkroom_event: Annotated[WebhookEvent, Header(description="the news")],
) -> None:
    """News of a job, which is the body, as it was then, without `b64_json`."""
