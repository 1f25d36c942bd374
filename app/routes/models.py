"""Routes that list the models, and show one with the schemas of its requests."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from app.auth import Principal
from app.dependencies.access import LIST_LIMITED, PrincipalDep, VisibleCatalogueDep
from app.dependencies.services import ServicesDep, live_workers
from app.openapi.routes import problems
from app.parsing.narrow_schemas import training_schemas
from app.parsing.schemas import bounds_of, controlnet_ids, inversion_ids, ip_adapter_ids, lora_ids, schemas_for
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Task
from contracts.catalogue.family import Family
from contracts.catalogue.guidance import GUIDANCE_KINDS
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.preparations import Preparation
from contracts.processes.workers import WorkerReport, is_ready, preparation_of, refusal_of
from contracts.requests.checks.second_models import second_models
from contracts.requests.checks.vaes import vae_ids
from contracts.requests.guidance import Guidance, with_defaults
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.training.settings import Kind
from contracts.requests.training.trainable import kinds_of
from contracts.views.lists import ListView
from contracts.weights.adapters.hypernetwork_files import KIND as HYPERNETWORK
from contracts.weights.adapters.hypernetwork_files import has_hypernetworks
from contracts.weights.adapters.lycoris_layouts import KINDS

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[LIST_LIMITED], responses=problems(429, 503))


class ReferencesView(BaseModel):
    """The reference images of a model's edits."""

    max_count: int = Field(description="Number of references that one request may have.")
    meaning: str = Field(description="How the model uses the references.")


class ModelView(BaseModel):
    """One model: OpenAI's fields, and ours."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="Value of the field `model` in requests.")
    object: Literal["model"] = Field("model", description="Always `model`.")
    owned_by: Literal["darkroom"] = Field("darkroom", description="Always `darkroom`.")
    family: str = Field(description=f"Architecture: {', '.join(f'`{family}`' for family in FAMILIES)}.")
    title: str = Field(description="Name for people.")
    quantization: str | None = Field(
        description="How its denoiser's weights are quantized, such as `int8_weight_only` or `gguf-q8_0`; null "
        "where they are not, or where its `.gguf` file is not on the API's machine."
    )
    text_encoder_quantization: dict[str, str] = Field(
        description="Text encoder -> how its weights are quantized, such as `int8_weight_only`; those that are "
        "not are left out."
    )
    aliases: list[str] = Field(description="Other names that requests may use for it.")
    tasks: list[Task] = Field(description="Tasks that it can run.")
    defaults: dict[str, Any] = Field(description="Field -> its value if a request leaves it out.")
    limits: dict[str, int | None] = Field(
        description="`min_side`, `max_side`, `size_multiple` in pixels; `max_pixels` of width × height; "
        "`max_images` of a request; `max_sequence_length` in tokens, null where requests cannot set it."
    )
    references: ReferencesView | None = Field(
        description="How it uses the `references` of an edit; null if it does not have the task `edit`."
    )
    guidance: dict[str, dict[str, Any]] = Field(
        description="Kind of `guidance` that it can follow -> the defaults of its options, null where that "
        "depends on the layers of the model; empty where it has plain guidance only, or none."
    )
    schedulers: list[str] = Field(description="Names of the schedulers that work with it.")
    loras: list[str] = Field(description="Ids of the LoRAs that work with it, uploaded ones included.")
    lora_kinds: list[str] = Field(
        description="Kinds of adapters that files in `loras` may have for it, as `/v1/loras` names them; empty "
        "where it takes none."
    )
    controlnets: list[str] = Field(description="Ids of the ControlNets that work with it.")
    trainings: list[Kind] = Field(
        description="Kinds of trainings (`POST /v1/trainings`) that are possible with it; empty if none are."
    )
    ip_adapters: list[str] = Field(description="Ids of the IP-Adapters that work with it.")
    vaes: list[str] = Field(description="Ids of the VAEs that can replace its own.")
    preview_vae: str | None = Field(
        description="Id of the VAE that makes its previews; null where they are approximated from the latents."
    )
    textual_inversions: list[str] = Field(
        description="Ids of the textual inversions that work with it, uploaded ones included."
    )
    refiners: list[str] = Field(description="Ids of the models that can be its `refiner`.")
    cascades: list[str] = Field(description="Ids of the models that can be its `cascade`.")
    prompt_hint: str = Field(description="An example prompt that suits it; empty if the operator gave none.")
    warm: bool = Field(description="Whether any worker has the model loaded.")
    warm_on: list[str] = Field(
        description="Ids of the workers that have the model loaded; empty unless you are an admin."
    )
    available: bool = Field(
        description="Whether jobs of it can be sent; false once every worker has failed to load it (503 then)."
    )
    unavailable_reason: str | None = Field(description="Why it is not available; null while it is.")
    ready: bool = Field(description="Whether a worker has the model's files, and jobs wait for no download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of the model goes on; null where none is needed or under way."
    )


class ModelDetail(ModelView):
    """One model with the JSON Schema of each task's request, narrowed to what this model supports."""

    classes: dict[int, str] | None = Field(
        description="Number -> label of up to 1000 classes that `class_label` can name, of a model prompted by "
        "them; a label has several names between commas, each of which is a value of `class_label`. Empty where "
        "the checkpoint has no labels, or is not on the API's machine; null for a model with prompts."
    )

    schemas: dict[Task, dict[str, Any]] = Field(description="Task -> JSON Schema of its request for this model.")
    training_schemas: dict[Kind, dict[str, Any]] = Field(
        description="Kind of training -> JSON Schema of its request to `POST /v1/trainings` for this model."
    )


class ModelList(ListView[ModelView]):
    """The models."""


@router.get("/models")
def list_models(catalogue: VisibleCatalogueDep, services: ServicesDep, principal: PrincipalDep) -> ModelList:
    """List all models."""
    workers = live_workers(services)
    return ModelList(data=[ModelView(**_model(row, catalogue, workers, principal)) for row in catalogue.models])


@router.get("/models/{id}", responses=problems(404))
def show_model(
    id: Annotated[str, Path(description="Id of the model.")],
    catalogue: VisibleCatalogueDep,
    services: ServicesDep,
    principal: PrincipalDep,
) -> ModelDetail:
    """Show a model, with the JSON Schema of each task's request for it, and of each kind of training."""
    row = catalogue.model(id)
    model = _model(row, catalogue, live_workers(services), principal)
    classes = dict(row.class_labels or {}) if row.family_spec.prompted_by_class else None
    return ModelDetail(
        **model, classes=classes, schemas=schemas_for(row, catalogue), training_schemas=training_schemas(row)
    )


def _model(
    row: ModelSpec, catalogue: Catalogue, workers: list[WorkerReport], principal: Principal
) -> dict[str, Any]:
    warm_on = [worker.id for worker in workers if row.id in worker.warm]
    family = row.family_spec
    defaults = {**family.defaults, **row.defaults, **({} if row.vae is None else {"vae": row.vae})}
    min_side, max_side = bounds_of(Txt2ImgRequest, "width")
    refusal = refusal_of(row.id, workers)
    return {
        "id": row.id,
        "family": row.family,
        "title": row.title,
        "quantization": row.quantization,
        "text_encoder_quantization": dict(row.text_encoder_quantization),
        "aliases": list(row.aliases),
        "tasks": row.tasks,
        "defaults": {name: value for name, value in defaults.items() if name not in row.refused},
        "limits": {
            "min_side": min_side,
            "max_side": max_side,
            "size_multiple": family.size_multiple,
            "max_pixels": row.pixel_cap,
            "max_images": family.max_images or bounds_of(Txt2ImgRequest, "num_images")[1],
            "max_sequence_length": family.max_sequence_length,
        },
        "references": None if family.references is None else asdict(family.references),
        "guidance": {} if "guidance" in row.refused else _guidance(row),
        "schedulers": row.schedulers,
        "loras": lora_ids(row, catalogue),
        "lora_kinds": _lora_kinds(family),
        "controlnets": controlnet_ids(row, catalogue),
        "trainings": kinds_of(row),
        "ip_adapters": ip_adapter_ids(row, catalogue),
        "vaes": vae_ids(row, catalogue),
        "preview_vae": row.preview_vae,
        "textual_inversions": inversion_ids(row, catalogue),
        "refiners": [second.id for second in second_models("refiner", row, catalogue)],
        "cascades": [second.id for second in second_models("cascade", row, catalogue)],
        "prompt_hint": row.prompt_hint,
        "warm": bool(warm_on),
        "warm_on": warm_on if principal.is_admin else [],
        "available": refusal is None,
        "unavailable_reason": refusal,
        "ready": is_ready(row.id, workers),
        "preparing": preparation_of(row.id, workers),
    }


def _guidance(row: ModelSpec) -> dict[str, dict[str, Any]]:
    found = {kind: with_defaults(Guidance(kind=kind), row) for kind in row.family_spec.guidance_kinds}
    return {
        kind: {name: getattr(guidance, name) for name in GUIDANCE_KINDS[kind].options}
        for kind, guidance in found.items()
    }


def _lora_kinds(family: Family) -> list[str]:
    """Kinds of files that LoRAs of a family may be."""
    if not family.denoiser_layers:
        return []
    return [*KINDS, HYPERNETWORK] if has_hypernetworks(family) else list(KINDS)
