"""The catalogue's models as Replicate's clients list them, each with one version."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.dependencies.access import LIST_LIMITED, VisibleCatalogueDep
from app.dependencies.services import LinksDep
from app.dialects.replicate.models import find_model, version_id, view_model, view_version
from app.dialects.replicate.schema import ModelVersion, ModelVersionList, ReplicateModel, ReplicateModelList
from app.openapi.routes import problems
from contracts.errors import NotFound

router = APIRouter(
    prefix="/replicate/v1/models", tags=["replicate"], dependencies=[LIST_LIMITED], responses=problems(429, 503)
)

_Owner = Annotated[str, Path(description="Owner of the model: `darkroom`.")]
_Name = Annotated[str, Path(description="Id of the model, from `/v1/models`.")]


@router.get("", name="list_replicate_models")
def list_replicate_models(catalogue: VisibleCatalogueDep, links: LinksDep) -> ReplicateModelList:
    """List all models, each with its version and the schema of its input."""
    return ReplicateModelList(results=[view_model(row, catalogue, links.base) for row in catalogue.models])


@router.get("/{owner}/{name}", name="show_replicate_model", responses=problems(404))
def show_replicate_model(
    owner: _Owner, name: _Name, catalogue: VisibleCatalogueDep, links: LinksDep
) -> ReplicateModel:
    """Show a model, with its version and the schema of its input."""
    return view_model(find_model(owner, name, catalogue), catalogue, links.base)


@router.get("/{owner}/{name}/versions", name="list_replicate_versions", responses=problems(404))
def list_replicate_versions(owner: _Owner, name: _Name, catalogue: VisibleCatalogueDep) -> ModelVersionList:
    """List the versions of a model, of which there is one."""
    return ModelVersionList(results=[view_version(find_model(owner, name, catalogue), catalogue)])


@router.get("/{owner}/{name}/versions/{id}", name="show_replicate_version", responses=problems(404))
def show_replicate_version(
    owner: _Owner,
    name: _Name,
    id: Annotated[str, Path(description="Id of the version.")],
    catalogue: VisibleCatalogueDep,
) -> ModelVersion:
    """Show the version of a model. When its row changes, so does its version, and the old one is not found."""
    model = find_model(owner, name, catalogue)
    if version_id(model) != id:
        raise NotFound("version", id[:200])
    return view_version(model, catalogue)
