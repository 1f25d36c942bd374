"""The certificate and the keys by which others know the signer of this service's images."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from contracts.errors import NotFound
from contracts.provenance.roots import read_public_keys, read_root

router = APIRouter(prefix="/.well-known/darkroom", tags=["provenance"])

#: Plain text, which every generated client reads; a type for PEM itself would need an exception in each.
_PEM = "text/plain"


class PublicKey(BaseModel):
    """A public key as a JWK (RFC 8037)."""

    kty: str = Field(description="Always `OKP`.")
    crv: str = Field(description="Always `Ed25519`.")
    x: str = Field(description="The key: 32 bytes in base64url.")
    kid: str = Field(description="Its id: the key's thumbprint (RFC 7638).")
    use: str = Field(description="Always `sig`.")
    alg: str = Field(description="Always `EdDSA`.")


class PublicKeys(BaseModel):
    """A JWK Set (RFC 7517)."""

    keys: list[PublicKey] = Field(description="The keys, including those that no longer sign.")


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


@router.get("/keys.json", responses=problems(503))
def show_receipt_keys(services: ServicesDep) -> PublicKeys:
    """Show the public keys that sign the receipts in this service's images, as a JWK Set.

    Empty where no receipt has been signed yet. Needs no API key: everybody may check an image.
    """
    keys = read_public_keys(services.storage)
    return PublicKeys(keys=[PublicKey.model_validate(key) for key in keys])
