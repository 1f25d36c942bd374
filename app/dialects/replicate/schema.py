"""Bodies of Replicate's HTTP API: predictions, models, files. Translates nothing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from app.error_handlers import Dialect, Problem, render_problem
from contracts.requests.strict_model import StrictModel
from contracts.views.prediction import PredictionView

WebhookFilter = Literal["start", "output", "completed"]


class ModelPredictionRequest(StrictModel):
    """A prediction of the model that the URL names."""

    input: dict[str, Any] = Field(
        description="Every field of a job except `model` and `webhook`, and Replicate's names of some of them: "
        "`num_outputs`, `mask`, `prompt_strength`, `guidance`. An image may be a file's URL, or an output's."
    )
    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="`https:` address that the prediction is posted to. Default: nowhere.",
    )
    webhook_events_filter: tuple[WebhookFilter, ...] | None = Field(
        None,
        min_length=1,
        max_length=3,
        description="When it is posted: `start`, when it begins; `output` and `completed`, when it ends. Logs are "
        "not posted. Default: all of them.",
    )
    webhook_completed: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="Address that the prediction is posted to when it ends; `webhook` has replaced it. Default: "
        "nowhere.",
    )
    stream: bool | None = Field(
        None, description="Only for compatibility: every prediction can be streamed. Default: the same."
    )


class PredictionRequest(ModelPredictionRequest):
    """A prediction of a version of a model."""

    version: str = Field(
        min_length=1,
        description="Id of the version, `OWNER/NAME`, or `OWNER/NAME:VERSION`; the owner is `darkroom`.",
    )


class PredictionList(BaseModel):
    """A page of predictions, newest first."""

    previous: None = Field(None, description="Always null: pages lead forward only.")
    next: str | None = Field(description="URL of the next page; null on the last one.")
    results: list[PredictionView] = Field(description="The predictions of this page.")


class ModelVersion(BaseModel):
    """A version of a model."""

    id: str = Field(description="Id of the version: a hash of the model's row in the catalogue.")
    created_at: AwareDatetime = Field(description="Always 1970: catalogues have no dates.")
    cog_version: str = Field(description="Version of Replicate's schema format.")
    openapi_schema: dict[str, Any] = Field(
        description="OpenAPI document; its schemas `Input` and `Output` say what the model takes and makes."
    )


class ReplicateModel(BaseModel):
    """A model in Replicate's format."""

    url: str = Field(description="URL of the model.")
    owner: str = Field(description="Always `darkroom`.")
    name: str = Field(description="Id of the model, from `/v1/models`.")
    description: str = Field(description="Name for people.")
    visibility: Literal["private"] = Field("private", description="Always `private`.")
    github_url: None = Field(None, description="Always null: not known here.")
    paper_url: None = Field(None, description="Always null: not known here.")
    license_url: None = Field(None, description="Always null: not known here.")
    run_count: int = Field(0, description="Always 0: runs of a model are not counted.")
    cover_image_url: None = Field(None, description="Always null: not known here.")
    default_example: None = Field(None, description="Always null: models have no example prediction here.")
    latest_version: ModelVersion = Field(description="The only version.")


class ReplicateModelList(BaseModel):
    """All models."""

    previous: None = Field(None, description="Always null: all are on one page.")
    next: None = Field(None, description="Always null: all are on one page.")
    results: list[ReplicateModel] = Field(description="The models of the catalogue.")


class ModelVersionList(BaseModel):
    """All versions of a model."""

    previous: None = Field(None, description="Always null: all are on one page.")
    next: None = Field(None, description="Always null: all are on one page.")
    results: list[ModelVersion] = Field(description="The only version.")


class ReplicateFile(BaseModel):
    """An uploaded image in Replicate's format."""

    id: str = Field(description="Id of the file: SHA-256 of the image as it is stored.")
    name: str = Field(description="Name made of the id; the original name is not stored.")
    content_type: str = Field(description="Media type of the image as it was sent.")
    size: int = Field(description="Bytes of the image as it is stored.")
    etag: str = Field(description="The same as the id.")
    checksums: dict[str, str] = Field(description="`sha256` of the image as it is stored.")
    metadata: dict[str, str] = Field(description="Always empty: metadata is not stored.")
    created_at: AwareDatetime = Field(description="When it was last uploaded.")
    expires_at: AwareDatetime = Field(description="When it is deleted; uploading it again extends that.")
    urls: dict[str, str] = Field(description="`get`: URL of the file, which inputs may name.")


class ReplicateFileList(BaseModel):
    """A page of files, the newest first."""

    previous: None = Field(None, description="Always null: pages lead forward only.")
    next: str | None = Field(description="URL of the next page; null on the last one.")
    results: list[ReplicateFile] = Field(description="The files of this page.")


class ReplicateSecret(BaseModel):
    """The secret that signs webhooks."""

    key: str = Field(description="The secret, `whsec_…`.")


#: Replicate's errors are problem details, as ours are.
REPLICATE = Dialect(
    "/replicate/",
    render_problem,
    "application/problem+json",
    Problem,
    (ModelPredictionRequest, PredictionRequest),
)
