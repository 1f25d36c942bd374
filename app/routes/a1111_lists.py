"""Lists of AUTOMATIC1111's web UI API, and the calls of its ControlNet extension. What is not here is empty."""

from __future__ import annotations

import base64

from fastapi import APIRouter

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, VisibleCatalogueDep
from app.dependencies.bodies import JsonBodyDep
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import ChecksDep
from app.dialects.a1111 import lists
from app.dialects.a1111.controlnet import A1111DetectRequest
from app.dialects.a1111.hires import LATENT_NAME
from app.dialects.a1111.preprocessors import MODULE_NAMES, module_details, preprocess_of
from app.openapi.bodies import request_body
from app.openapi.routes import problems
from app.parsing.requests import parse
from app.routes.loras import facts_of_lora
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.images.preprocessing import own_resolution, resolve_options
from contracts.weights.adapters.hypernetwork_files import KIND as HYPERNETWORK

router = APIRouter(tags=["a1111"], responses=problems(429, 503))
_lists = APIRouter(prefix="/sdapi/v1", dependencies=[LIST_LIMITED])
_refreshes = APIRouter(prefix="/sdapi/v1", dependencies=[GENERATE_ONLY], responses=problems(403))
_controlnet = APIRouter(prefix="/controlnet")


@_lists.get("/scripts", name="list_a1111_scripts")
def list_scripts(services: ServicesDep) -> lists.A1111Scripts:
    """List the scripts: ControlNet, where there is one."""
    return lists.list_scripts(services.catalogue)


@_lists.get("/samplers", name="list_a1111_samplers")
def list_samplers(services: ServicesDep) -> list[lists.A1111Sampler]:
    """List the samplers that any model can use."""
    return lists.list_samplers(services.catalogue)


@_lists.get("/schedulers", name="list_a1111_schedule_types")
def list_schedule_types() -> list[lists.A1111ScheduleType]:
    """List the schedule types; not every sampler has each of them."""
    return lists.list_schedule_types()


@_lists.get("/sd-models", name="list_a1111_models")
def list_models(services: ServicesDep) -> list[lists.A1111Model]:
    """List the models."""
    return lists.list_models(services.catalogue)


@_lists.get("/loras", name="list_a1111_loras")
def list_loras(catalogue: VisibleCatalogueDep) -> list[lists.A1111Lora]:
    """List the LoRAs that your prompts may name."""
    return lists.list_loras(catalogue)


@_lists.get("/upscalers", name="list_a1111_upscalers")
def list_upscalers(services: ServicesDep) -> list[lists.A1111Upscaler]:
    """List the upscalers: scaling without a network, and the networks."""
    return lists.list_upscalers(services.catalogue)


@_lists.get("/sd-vae", name="list_a1111_vaes")
def list_vaes() -> list[lists.A1111Named]:
    """List further VAEs: none, each model has its own."""
    return []


@_lists.get("/latent-upscale-modes", name="list_a1111_latent_upscalers")
def list_latent_upscalers() -> list[lists.A1111Named]:
    """List the ways to upscale latents: one."""
    return [lists.A1111Named(name=LATENT_NAME)]


@_lists.get("/hypernetworks", name="list_a1111_hypernetworks")
def list_hypernetworks(catalogue: VisibleCatalogueDep, services: ServicesDep) -> list[lists.A1111Hypernetwork]:
    """List the hypernetworks that your prompts may name as `<lora:NAME:SCALE>`; they are among the LoRAs, too."""
    facts = [(row, facts_of_lora(row, services.catalogue, services.agreed_rows)) for row in catalogue.loras]
    names = [row.id for row, known in facts if known is not None and HYPERNETWORK in known.kinds]
    return [lists.A1111Hypernetwork(name=name, path=name) for name in names]


@_lists.get("/face-restorers", name="list_a1111_face_restorers")
def list_face_restorers() -> list[lists.A1111Named]:
    """List the models that restore faces: none."""
    return []


@_lists.get("/realesrgan-models", name="list_a1111_realesrgan_models")
def list_realesrgan_models() -> list[lists.A1111Named]:
    """List the models of RealESRGAN: none."""
    return []


@_lists.get("/prompt-styles", name="list_a1111_styles")
def list_styles() -> list[lists.A1111Named]:
    """List the prompt styles: none."""
    return []


@_lists.get("/embeddings", name="list_a1111_embeddings")
def list_embeddings(catalogue: VisibleCatalogueDep) -> lists.A1111Embeddings:
    """List the textual inversions that your prompts may name."""
    return lists.list_embeddings(catalogue)


@_lists.get("/memory", name="show_a1111_memory")
def show_memory() -> lists.A1111Memory:
    """Say where memory is told: workers report it, to admins."""
    where = {"error": "GET /v1/workers tells admins what each worker uses"}
    return lists.A1111Memory(ram=where, cuda=where)


@_lists.get("/cmd-flags", name="show_a1111_flags")
def show_flags() -> lists.A1111Flags:
    """Show the flags that clients look at."""
    return lists.A1111Flags()


def _do_nothing() -> None:
    """Do nothing: lists are always fresh, and workers load models by themselves."""


for _name in ("refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings", "reload-checkpoint"):
    _refreshes.post(f"/{_name}", name=f"{_name.replace('-', '_a1111_')}")(_do_nothing)


@_controlnet.get("/version", name="show_a1111_controlnet_version")
def show_version() -> lists.A1111ControlNetVersion:
    """Show the version of the extension's API."""
    return lists.A1111ControlNetVersion(version=2)


@_controlnet.get("/model_list", name="list_a1111_controlnets", dependencies=[LIST_LIMITED])
def list_controlnets(services: ServicesDep) -> lists.A1111ControlNetModels:
    """List the ControlNets."""
    return lists.A1111ControlNetModels(model_list=[row.id for row in services.catalogue.controlnets])


@_controlnet.get("/module_list", name="list_a1111_preprocessors", dependencies=[LIST_LIMITED])
def list_preprocessors() -> lists.A1111ControlNetModules:
    """List the preprocessors, and `none`, which changes nothing."""
    return lists.A1111ControlNetModules(
        module_list=[lists.NO_MODULE, *MODULE_NAMES], module_detail=module_details()
    )


@_controlnet.post(
    "/detect",
    name="detect_a1111_controls",
    openapi_extra=request_body(A1111DetectRequest),
    responses=problems(400, 403, 408, 413, 415, 422),
)
def detect(body: JsonBodyDep, checks: ChecksDep) -> lists.A1111Detection:
    """Make control images of images; with `none` they stay as they are."""
    request = parse(A1111DetectRequest, body.raw)
    name = preprocess_of(request.controlnet_module)
    if name is not None and name not in PREPROCESSORS:
        message = f"unknown preprocessor {name[:64]!r}"
        raise InvalidRequest([FieldProblem("controlnet_module", message, [lists.NO_MODULE, *MODULE_NAMES])])
    images = []
    for number, text in enumerate(request.controlnet_images):
        field = f"controlnet_images.{number}"
        image = checks.inputs.read_image(field, text)
        if name is not None:
            options = resolve_options(
                PREPROCESSORS[name], request.options, own_resolution((image.width, image.height))
            )
            image = checks.inputs.preprocess_file(field, image.data, name, options)
        images.append(base64.b64encode(image.data).decode("ascii"))
    return lists.A1111Detection(images=images, info="Success")


for _part in (_lists, _refreshes, _controlnet):
    router.include_router(_part)
