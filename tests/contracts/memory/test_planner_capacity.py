"""A worker's capacity: what it reports, and what the API plans by it."""

from __future__ import annotations

from pathlib import Path

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.planner import Capacity, take_capacity
from contracts.memory.policy import Policy
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.schema import ControlNetRequest, Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE

MIB = 2**20


def capacity(budget_bytes: int, policy: Policy | None = None) -> tuple[Catalogue, Capacity]:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    return catalogue, take_capacity(catalogue, budget_bytes, policy or Policy(), lambda _: 4)


def test_a_capacity_sent_as_json_makes_the_same_plans() -> None:
    catalogue, here = capacity(14 * MIB, Policy(t5="cpu", allow_drop_t5=True))
    there = Capacity.model_validate_json(here.model_dump_json())
    assert there == here
    for model in catalogue.models:
        job = resolve(Txt2ImgRequest(prompt="a red circle"), model, {})
        assert there.plan(model.family, job) == here.plan(model.family, job)


def test_every_local_model_controlnet_and_adapter_has_a_size() -> None:
    catalogue, reported = capacity(MIB)
    assert reported.models.keys() == {model.id for model in catalogue.models}
    rows = {"controlnet": catalogue.controlnets, "lora": catalogue.loras, "ip_adapter": catalogue.ip_adapters}
    named = {f"{kind}:{row.id}" for kind, of_kind in rows.items() for row in of_kind}
    encoders = {f"image_encoder of {row.id}" for row in catalogue.ip_adapters}
    encoders |= {f"image_encoder:{Path(row.image_encoder).name}" for row in catalogue.ip_adapters}
    assert reported.extras.keys() == named | encoders
    # The tokens of Redux are in the prompt's embedding.
    assert {id for id, extra in reported.extras.items() if not extra.bytes} == {"ip_adapter:shapes-flux-redux"}


def test_a_requests_controlnets_and_adapters_are_in_its_plan() -> None:
    catalogue, reported = capacity(64 * MIB)
    model = catalogue.model("shapes-sdxl")
    control = {"controlnet": "shapes-sdxl-canny", "image": "-"}
    request = ControlNetRequest.model_validate(
        {"prompt": "-", "controls": [control, control], "loras": [{"name": "shapes-sdxl-tint"}]}
    )
    image = StoredImage("-", 64, 64)
    job = resolve(request, model, {f"controls.{number}.image": image for number in (0, 1)})
    plan = reported.plan(model.family, job)
    assert plan is not None
    assert [part.name for part in plan.components[-2:]] == [
        "controlnet:shapes-sdxl-canny",
        "lora:shapes-sdxl-tint",
    ]


def test_an_uploaded_adapters_size_comes_from_its_header() -> None:
    catalogue, reported = capacity(64 * MIB)
    model = catalogue.model("shapes-sdxl")
    job = resolve(Txt2ImgRequest(prompt="-"), model, {})
    uploaded = LoraParameters(name="mine", key="inputs/0.safetensors", sha256="0", values=1000)
    plan = reported.plan(model.family, job.model_copy(update={"loras": (uploaded,)}))
    assert plan is not None
    assert (plan.components[-1].name, plan.components[-1].bytes) == ("lora:mine", 4000)


def test_a_controlnet_that_is_still_on_a_hub_has_an_assumed_size() -> None:
    """Else the API would accept jobs that no worker can run."""
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    far = ControlNetSpec(id="far", family="sdxl", source="nobody/control")
    rows = catalogue.model_copy(update={"controlnets": (*catalogue.controlnets, far)})
    model = rows.model("shapes-sdxl")
    request = ControlNetRequest.model_validate({"prompt": "-", "controls": [{"controlnet": "far", "image": "-"}]})
    job = resolve(request, model, {"controls.0.image": StoredImage("-", 64, 64)})
    plans = [take_capacity(rows, size * MIB, Policy(), lambda _: 4).plan("sdxl", job) for size in (16, 16 * 1024)]
    assert [plan and plan.fits for plan in plans] == [False, True]
    assert all(plan and plan.reason.endswith("the size of controlnet:far is assumed") for plan in plans)
    assert all(plan and plan.components[-1].origin == "assumed" for plan in plans)


def test_a_model_that_cannot_be_read_is_left_out() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    missing = ModelSpec(id="missing", family="sd3", source="nobody/nothing")
    gone = ModelSpec(id="gone", family="sd3", source="./not-here")
    control = ControlNetSpec(id="far", family="sd3", source="nobody/control")
    rows = catalogue.model_copy(
        update={"models": (*catalogue.models, missing, gone), "controlnets": (*catalogue.controlnets, control)}
    )
    reported = take_capacity(rows, MIB, Policy(), lambda _: 2)
    assert {"missing", "gone"}.isdisjoint(reported.models)
    assert reported.extras["controlnet:far"].origin == "assumed"
    job = resolve(Txt2ImgRequest(prompt="-"), missing, {})
    assert reported.plan("sd3", job) is None
