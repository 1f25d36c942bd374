"""The request field `vae`: whether the VAE that it names can take the place of the model's own."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, NotFound
from contracts.requests.schema import JobRequest


def vae_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """Yield a problem if the VAE is not in the catalogue, or reads other latents than the model's."""
    if request.vae is None:
        return
    names = vae_ids(model, catalogue)
    try:
        reason = catalogue.vae(request.vae).misfit(model.id, model.family, model.latents)
    except NotFound:
        reason = f"unknown VAE {request.vae[:64]!r}"
    if reason is not None:
        yield FieldProblem("vae", reason, names)


def vae_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return the ids of the VAEs that can take the place of the model's own."""
    return [row.id for row in catalogue.vaes if row.misfit(model.id, model.family, model.latents) is None]
