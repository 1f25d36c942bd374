"""What a worker tells of its memory, and what others can plan by it."""

from __future__ import annotations

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, ModelSpec, read_catalogue
from contracts.memory.plan import Policy
from contracts.memory.planner import Capacity, take_capacity
from contracts.requests.parameters import LoraParameters
from contracts.requests.resolution import StoredImage, resolve
from contracts.requests.schema import ControlNetRequest, Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE

MIB = 2**20


def capacity(budget_bytes: int, policy: Policy | None = None) -> tuple[Catalogue, Capacity]:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    return catalogue, take_capacity(catalogue, budget_bytes, policy or Policy(), lambda _: 4)


def test_it_travels_as_json_and_plans_the_same_at_the_other_end() -> None:
    catalogue, here = capacity(14 * MIB, Policy(t5="cpu", allow_drop_t5=True))
    there = Capacity.model_validate_json(here.model_dump_json())
    assert there == here
    for model in catalogue.models:
        job = resolve(Txt2ImgRequest(prompt="a red circle"), model, {})
        assert there.plan(model.family, job) == here.plan(model.family, job)


def test_every_model_controlnet_and_adapter_that_is_here_is_weighed() -> None:
    catalogue, told = capacity(MIB)
    assert told.models.keys() == {model.id for model in catalogue.models}
    named = {f"controlnet:{row.id}" for row in catalogue.controlnets} | {
        f"lora:{row.id}" for row in catalogue.loras
    }
    assert told.extras.keys() == named
    assert all(extra.bytes > 0 for extra in told.extras.values())


def test_what_a_request_names_is_in_its_plan() -> None:
    catalogue, told = capacity(64 * MIB)
    model = catalogue.model("shapes-sdxl")
    control = {"controlnet": "shapes-sdxl-canny", "image": "-"}
    request = ControlNetRequest.model_validate(
        {"prompt": "-", "controls": [control, control], "loras": [{"name": "shapes-sdxl-tint"}]}
    )
    picture = StoredImage("-", 64, 64)
    job = resolve(request, model, {f"controls.{number}.image": picture for number in (0, 1)})
    plan = told.plan(model.family, job)
    assert plan is not None
    assert [part.name for part in plan.components[-2:]] == [
        "controlnet:shapes-sdxl-canny",
        "lora:shapes-sdxl-tint",
    ]


def test_an_uploaded_adapter_weighs_what_its_header_said() -> None:
    catalogue, told = capacity(64 * MIB)
    model = catalogue.model("shapes-sdxl")
    job = resolve(Txt2ImgRequest(prompt="-"), model, {})
    uploaded = LoraParameters(name="mine", key="inputs/0.safetensors", sha256="0", values=1000)
    plan = told.plan(model.family, job.model_copy(update={"loras": (uploaded,)}))
    assert plan is not None
    assert (plan.components[-1].name, plan.components[-1].bytes) == ("lora:mine", 4000)


def test_a_controlnet_still_on_a_hub_is_not_taken_to_weigh_nothing() -> None:
    """Else the API would accept what no worker can run."""
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


def test_a_model_that_is_nowhere_is_left_out() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    missing = ModelSpec(id="missing", family="sd3", source="nobody/nothing")
    gone = ModelSpec(id="gone", family="sd3", source="./not-here")
    control = ControlNetSpec(id="far", family="sd3", source="nobody/control")
    rows = catalogue.model_copy(
        update={"models": (*catalogue.models, missing, gone), "controlnets": (*catalogue.controlnets, control)}
    )
    told = take_capacity(rows, MIB, Policy(), lambda _: 2)
    assert {"missing", "gone"}.isdisjoint(told.models)
    assert told.extras["controlnet:far"].origin == "assumed"
    job = resolve(Txt2ImgRequest(prompt="-"), missing, {})
    assert told.plan("sd3", job) is None
