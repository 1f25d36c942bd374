"""The certificate by which others know the signer of this service's images."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from contracts.errors import NotFound
from contracts.provenance.roots import read_root

router = APIRouter(prefix="/.well-known/darkroom", tags=["provenance"])

#: Plain text, which every generated client reads; a type for PEM itself would need an exception in each.
_PEM = "text/plain"


@router.get(
    "/credentials.pem",
    response_class=Response,
    responses={
        **problems(404, 503),
        200: {"description": "The certificate.", "content": {_PEM: {"schema": {"type": "string"}}}},
    },
)
def show_root_certificate(services: ServicesDep) -> Response:
    """Show the certificate at the root of the signatures in this service's images (Content Credentials), as PEM.

    404 where images are not signed, or none has been yet. Needs no API key: everybody may check an image.
    """
    root = read_root(services.settings.shared, services.storage)
    if root is None:
        raise NotFound("certificate", "credentials.pem")
    return Response(root, media_type=_PEM)
