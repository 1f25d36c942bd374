"""Routes that show and replace the secret with which the caller's receivers verify webhooks."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.dependencies.access import GENERATE_ONLY, PrincipalDep
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.routes import problems
from contracts.auth.api_keys import Scope
from contracts.outbound.signing import Secret
from contracts.redis.connection import redis_errors_are_unavailable

router = APIRouter(prefix="/v1", tags=["webhooks"])


class WebhookSecretView(BaseModel):
    """The secret of one owner."""

    secret: str = Field(description="The secret, `whsec_…`, as libraries for Standard Webhooks take it.")


@router.get("/webhooks/secret", responses=problems(403, 503))
def show_webhook_secret(services: ServicesDep, principal: PrincipalDep, response: Response) -> WebhookSecretView:
    """Show the secret that signs the webhooks of your jobs. No other owner's webhooks are signed with it."""
    principal.require(Scope.GENERATE)
    with redis_errors_are_unavailable():
        return _view(services.webhook_secrets.current(principal.owner)[0], response)


@router.post("/webhooks/secret", dependencies=[GENERATE_ONLY], responses=problems(403, 409, 422, 429, 503))
def replace_webhook_secret(
    services: ServicesDep, principal: PrincipalDep, call: IdempotentCallDep, response: Response
) -> WebhookSecretView:
    """Replace your webhook secret. For a day, webhooks are signed with the former one as well."""
    owner, secrets = principal.owner, services.webhook_secrets

    def replace(_: object) -> Secret:
        return secrets.replace(owner)

    def find(_: str) -> Secret:
        return secrets.current(owner)[0]

    with redis_errors_are_unavailable():
        return _view(call.run(b"", response, replace, find, lambda _: "secret"), response)


def _view(secret: Secret, response: Response) -> WebhookSecretView:
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretView(secret=secret.write())
