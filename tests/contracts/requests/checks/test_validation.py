"""Every validation rule: refused requests with the field, and the parameters of accepted requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, IpAdapterSpec, LoraSpec
from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import InvalidRequest
from contracts.requests.checks.t2i_adapters import require_t2i_size
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.fields import MAX_DRAWN_SEED, MAX_SEED
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.schema import REQUESTS, JobRequest

IMAGE = "data:image/png;base64,AAAA"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(
        root=tmp_path,
        default_model="xl",
        models=(
            ModelSpec(
                id="xl", family="sdxl", source="xl", defaults={"width": 64, "height": 64}, max_pixels=128 * 128
            ),
            ModelSpec(id="three", family="sd3", source="three"),
            ModelSpec(id="one", family="flux", source="one"),
            ModelSpec(id="quick", family="flux", source="quick", refuses=("guidance_scale",)),
        ),
        loras=(
            LoraSpec(id="stripes-xl", family="sdxl", source="stripes.safetensors"),
            LoraSpec(id="stripes-flux", family="flux", source="stripes-flux.safetensors"),
        ),
        ip_adapters=(
            IpAdapterSpec(id="look-xl", family="sdxl", source="look.safetensors", image_encoder="clip"),
            IpAdapterSpec(
                id="look-other", family="sdxl", source="o.safetensors", image_encoder="clip", models=("other",)
            ),
            IpAdapterSpec(id="look-one", family="flux", source="redux.safetensors", image_encoder="siglip"),
            IpAdapterSpec(id="look-two", family="flux", source="redux2.safetensors", image_encoder="siglip"),
        ),
        controlnets=(
            ControlNetSpec(id="edges-xl", family="sdxl", source="edges", preprocessors=("canny",)),
            ControlNetSpec(id="sketch-xl", family="sdxl", source="sketch", kind="t2i_adapter"),
            ControlNetSpec(id="edges-three", family="sd3", source="edges3"),
            ControlNetSpec(id="inpaint-three", family="sd3", source="inpaint3", kind="inpaint"),
            ControlNetSpec(id="edges-one", family="flux", source="edges1"),
        ),
    )


def request(task: str, **fields: Any) -> JobRequest:
    body = {"prompt": "a red circle"} | fields
    return REQUESTS[Task(task)].model_validate_json(json.dumps(body), strict=True)


def edges(family: str, **fields: Any) -> dict[str, Any]:
    return {"controlnet": f"edges-{family}", "image": IMAGE} | fields


def look(name: str = "xl", **fields: Any) -> dict[str, Any]:
    return {"name": f"look-{name}", "images": [IMAGE]} | fields


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("txt2img", {"model": "nothing"}, "model"),
    ("txt2img", {"prompt_2": "x", "prompt_3": "y"}, "prompt_3"),
    ("txt2img", {"model": "one", "prompt_3": "y"}, "prompt_3"),
    ("txt2img", {"model": "one", "clip_skip": 1}, "clip_skip"),
    ("txt2img", {"true_cfg_scale": 2.0}, "true_cfg_scale"),
    ("txt2img", {"model": "three", "guidance_rescale": 0.5}, "guidance_rescale"),
    ("txt2img", {"model": "three", "original_size": [64, 64]}, "original_size"),
    ("txt2img", {"max_sequence_length": 77}, "max_sequence_length"),
    ("txt2img", {"model": "one", "negative_prompt": "blue"}, "negative_prompt"),
    ("txt2img", {"model": "one", "negative_prompt": "blue", "true_cfg_scale": 1.0}, "negative_prompt"),
    ("txt2img", {"model": "quick", "guidance_scale": 3.0}, "guidance_scale"),
    ("txt2img", {"width": 68}, "width"),
    ("txt2img", {"model": "one", "height": 72}, "height"),
    ("txt2img", {"model": "three", "width": 72}, "width"),
    ("txt2img", {"width": 256, "height": 128}, "width"),
    ("txt2img", {"height": 512}, "height"),
    ("txt2img", {"scheduler": "nothing"}, "scheduler"),
    ("txt2img", {"scheduler": "flow_euler"}, "scheduler"),
    ("txt2img", {"model": "one", "scheduler": "ddim"}, "scheduler"),
    ("txt2img", {"loras": [{"name": "nothing"}]}, "loras.0.name"),
    ("txt2img", {"loras": [{"name": "stripes-xl"}, {"name": "stripes-flux"}]}, "loras.1.name"),
    ("txt2img", {"loras": [{"name": "stripes-xl"}, {"name": "stripes-xl"}]}, "loras.1.name"),
    ("img2img", {"image": IMAGE, "strength": 0.01}, "strength"),
    ("txt2img", {"speed": "fast", "num_inference_steps": 7}, "speed"),
    ("img2img", {"speed": "fast", "num_inference_steps": 13, "image": IMAGE}, "speed"),
    ("txt2img", {"ip_adapters": [look("nothing")]}, "ip_adapters.0.name"),
    ("txt2img", {"ip_adapters": [look("other")]}, "ip_adapters.0.name"),
    ("txt2img", {"ip_adapters": [look(), look()]}, "ip_adapters.1.name"),
    ("txt2img", {"model": "three", "ip_adapters": [look()]}, "ip_adapters"),
    ("txt2img", {"model": "one", "ip_adapters": [look()]}, "ip_adapters.0.name"),
    ("txt2img", {"model": "one", "ip_adapters": [look("one", mask=IMAGE)]}, "ip_adapters.0.mask"),
    ("txt2img", {"model": "one", "ip_adapters": [look("one"), look("two")]}, "ip_adapters.1.name"),
    ("txt2img", {"model": "one", "ip_adapters": [look("one")], "true_cfg_scale": 2.0}, "true_cfg_scale"),
    ("controlnet", {"controls": [edges("nothing")]}, "controls.0.controlnet"),
    ("controlnet", {"controls": [edges("one")]}, "controls.0.controlnet"),
    ("controlnet", {"controls": [{"controlnet": "edges-xl"}]}, "controls.0.image"),
    ("controlnet", {"controls": [edges("xl", preprocess="sharpen")]}, "controls.0.preprocess"),
    (
        "controlnet",
        {"controls": [edges("xl", preprocess="canny", preprocess_options={"low_threshold": 0})]},
        "controls.0.preprocess_options.low_threshold",
    ),
    ("controlnet", {"controls": [edges("xl", guidance_start=0.5, guidance_end=0.5)]}, "controls.0.guidance_start"),
    ("controlnet", {"controls": [edges("xl")], "mask_image": IMAGE}, "image"),
    ("controlnet", {"controls": [edges("xl")], "strength": 0.5}, "strength"),
    ("controlnet", {"controls": [edges("xl")], "image": IMAGE, "mask_blur": 3}, "mask_blur"),
    ("controlnet", {"model": "three", "controls": [edges("three")], "image": IMAGE}, "image"),
    (
        "controlnet",
        {"model": "three", "controls": [edges("three")], "image": IMAGE, "mask_image": IMAGE},
        "controls.0.controlnet",
    ),
    ("controlnet", {"model": "three", "controls": [{"controlnet": "inpaint-three"}]}, "controls.0.controlnet"),
    (
        "controlnet",
        {
            "model": "three",
            "controls": [{"controlnet": "inpaint-three", "image": IMAGE}],
            "image": IMAGE,
            "mask_image": IMAGE,
        },
        "controls.0.image",
    ),
    (
        "controlnet",
        {
            "model": "one",
            "controls": [edges("one")],
            "image": IMAGE,
            "negative_prompt": "blue",
        },
        "negative_prompt",
    ),
]


@pytest.mark.parametrize(
    ("task", "fields", "field"), REFUSED, ids=lambda value: None if isinstance(value, dict) else value
)
def test_a_request_that_no_worker_can_run_is_refused_by_field(
    catalogue: Catalogue, task: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request(task, **fields), catalogue)
    assert field in [problem.field for problem in caught.value.problems]
    assert all(problem.message for problem in caught.value.problems)


def test_all_problems_are_reported_at_once(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request("txt2img", width=68, scheduler="flow_euler", true_cfg_scale=2.0), catalogue)
    assert {problem.field for problem in caught.value.problems} == {"width", "scheduler", "true_cfg_scale"}


def accepted(catalogue: Catalogue, sent: JobRequest, **images: StoredImage) -> Any:
    return resolve(sent, check(sent, catalogue), images)


def test_every_default_is_filled_in_from_task_model_and_family(catalogue: Catalogue) -> None:
    filled = accepted(catalogue, request("txt2img"))
    assert (filled.model, filled.width, filled.height) == ("xl", 64, 64)
    assert (filled.num_inference_steps, filled.guidance_scale, filled.scheduler) == (30, 5.0, "euler")
    assert filled.guidance_rescale == 0.0
    assert filled.true_cfg_scale is None
    flux = accepted(catalogue, request("txt2img", model="one"))
    assert (flux.true_cfg_scale, flux.max_sequence_length, flux.scheduler) == (1.0, 512, "flow_euler")


def test_a_model_that_refuses_guidance_has_none(catalogue: Catalogue) -> None:
    assert accepted(catalogue, request("txt2img", model="quick")).guidance_scale is None


def test_seed_zero_is_a_seed_whose_meaning_the_operator_decides(catalogue: Catalogue) -> None:
    named = accepted(catalogue, request("txt2img", seed=0))
    assert (named.seed, named.batchable) == (0, None)


@pytest.mark.parametrize("first", [MAX_DRAWN_SEED, MAX_SEED - 7, 0])
def test_every_seed_that_an_image_got_can_be_sent_again(catalogue: Catalogue, first: int) -> None:
    seeds = accepted(catalogue, request("txt2img", seed=first, num_images=8)).seeds

    assert [accepted(catalogue, request("txt2img", seed=seed)).seed for seed in seeds] == seeds


@pytest.mark.parametrize(("seed", "images"), [(MAX_SEED, 2), (MAX_SEED - 6, 8)])
def test_a_seed_whose_last_image_would_get_one_that_cannot_be_sent_is_refused(
    catalogue: Catalogue, seed: int, images: int
) -> None:
    with pytest.raises(InvalidRequest, match="seed: is too large") as caught:
        accepted(catalogue, request("txt2img", seed=seed, num_images=images))

    assert caught.value.problems[0].allowed == f"0–{MAX_SEED - images + 1}"


def test_seed_minus_one_draws_a_seed_as_none_does(catalogue: Catalogue) -> None:
    drawn = [accepted(catalogue, request("txt2img", seed=-1)) for _ in range(3)]

    assert len({parameters.seed for parameters in drawn}) > 1
    assert all(parameters.seed >= 0 and parameters.batchable for parameters in drawn)


def test_without_a_seed_one_is_drawn_and_calls_may_be_joined(catalogue: Catalogue) -> None:
    drawn = [accepted(catalogue, request("txt2img")) for _ in range(4)]
    assert len({parameters.seed for parameters in drawn}) > 1
    assert all(0 <= parameters.seed <= MAX_DRAWN_SEED and parameters.batchable for parameters in drawn)


@pytest.mark.parametrize("batchable", [True, False])
@pytest.mark.parametrize("seed", [None, 7])
def test_the_batchable_field_decides_with_and_without_a_seed(
    catalogue: Catalogue, seed: int | None, *, batchable: bool
) -> None:
    assert accepted(catalogue, request("txt2img", seed=seed, batchable=batchable)).batchable is batchable


def test_a_refusal_of_fast_says_how_many_steps_it_needs(catalogue: Catalogue) -> None:
    assert accepted(catalogue, request("txt2img")).speed == "exact"
    assert accepted(catalogue, request("txt2img", speed="fast", num_inference_steps=8)).speed == "fast"
    with pytest.raises(InvalidRequest) as caught:
        check(request("img2img", speed="fast", num_inference_steps=13, image=IMAGE), catalogue)
    (problem,) = caught.value.problems
    assert problem.allowed == "exact, or num_inference_steps ≥ 14"
    enough = request("img2img", speed="fast", num_inference_steps=14, image=IMAGE)
    assert accepted(catalogue, enough, image=StoredImage("inputs/a", 64, 64)).speed == "fast"


@pytest.mark.parametrize("strength", [5e-324, 1e-9, 0.039])
def test_a_strength_for_which_no_steps_are_enough_is_refused_without_naming_any(
    catalogue: Catalogue, strength: float
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request("img2img", speed="fast", strength=strength, image=IMAGE), catalogue)
    allowed = {problem.field: problem.allowed for problem in caught.value.problems}
    assert allowed["speed"] == "exact"


def test_the_image_size_rounded_to_the_grid_is_the_default(catalogue: Catalogue) -> None:
    sent = request("img2img", image=IMAGE)
    parameters = accepted(catalogue, sent, image=StoredImage("inputs/a", 100, 75))
    assert (parameters.width, parameters.height) == (96, 72)
    assert (parameters.image, parameters.strength) == ("inputs/a", 0.6)


def test_a_requested_size_overrides_the_images_size(catalogue: Catalogue) -> None:
    sent = request("img2img", image=IMAGE, width=128, height=64)
    parameters = accepted(catalogue, sent, image=StoredImage("inputs/a", 4000, 3000))
    assert (parameters.width, parameters.height) == (128, 64)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4000, 3000), (88, 64)), ((60, 60), (64, 64)), ((256, 128), (128, 64)), ((9, 900), (64, 256))],
)
def test_an_image_of_a_size_that_the_model_cannot_generate_is_fitted_to_the_models_own(
    catalogue: Catalogue, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    parameters = accepted(catalogue, request("img2img", image=IMAGE), image=StoredImage("inputs/a", *size))

    assert (parameters.width, parameters.height) == expected


def test_one_side_is_enough_and_the_other_follows_the_image(catalogue: Catalogue) -> None:
    image = StoredImage("inputs/a", 160, 80)

    wide = accepted(catalogue, request("img2img", image=IMAGE, width=128), image=image)
    tall = accepted(catalogue, request("img2img", image=IMAGE, height=72), image=image)
    control = {"controls.0.image": StoredImage("inputs/c", 160, 80)}
    guided = accepted(catalogue, request("controlnet", controls=[edges("xl")], width=128), **control)

    assert (wide.width, wide.height) == (128, 64)
    assert (tall.width, tall.height) == (144, 72)
    assert (guided.width, guided.height) == (128, 64)


def test_what_is_done_to_the_images_is_in_the_parameters(catalogue: Catalogue) -> None:
    image = StoredImage("inputs/a", 256, 64, color_profile="converted from Display P3 to sRGB")

    def used(**fields: Any) -> dict[str, Any]:
        (use,) = accepted(catalogue, request("img2img", image=IMAGE, **fields), image=image).input_images
        return use.model_dump()  # type: ignore[no-any-return]

    size = {"width": 64, "height": 64}
    as_it_came = {"field": "image", "width": 256, "height": 64, "color_profile": image.color_profile}
    assert used(**size) == as_it_came | {"fit": "cover", "crop": (96, 0, 160, 64)}
    assert used(**size, fit="pad") == as_it_came | {"fit": "pad", "area": (0, 24, 64, 40)}
    assert used(**size, fit="stretch") == as_it_came | {"fit": "stretch"}
    assert used(width=256, height=64) == as_it_came


def test_contain_takes_the_aspect_of_the_image_within_the_size(catalogue: Catalogue) -> None:
    sent = request("img2img", image=IMAGE, width=128, height=128, fit="contain")

    parameters = accepted(catalogue, sent, image=StoredImage("inputs/a", 320, 160))

    assert (parameters.width, parameters.height) == (128, 64)


def test_a_mask_whose_white_is_cut_off_with_the_images_edge_is_refused(catalogue: Catalogue) -> None:
    sent = request("inpaint", image=IMAGE, mask_image=IMAGE, width=64, height=64)
    images = {
        "image": StoredImage("inputs/a", 256, 64),
        "mask_image": StoredImage("inputs/b", 256, 64, white=(0, 0, 90, 64)),
    }

    with pytest.raises(
        InvalidRequest, match=r"changes no pixel: what it regenerates is within .* with fit cover at 64 × 64"
    ):
        accepted(catalogue, sent, **images)
    assert accepted(catalogue, sent.model_copy(update={"fit": "pad"}), **images).fit == "pad"


def test_a_mask_of_another_size_than_its_image_is_refused(catalogue: Catalogue) -> None:
    sent = request("inpaint", image=IMAGE, mask_image=IMAGE)
    images = {"image": StoredImage("inputs/a", 64, 64), "mask_image": StoredImage("inputs/b", 64, 72)}
    with pytest.raises(InvalidRequest) as caught:
        accepted(catalogue, sent, **images)
    assert [problem.field for problem in caught.value.problems] == ["mask_image"]


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, Mode.CONTROLNET),
        ({"image": IMAGE}, Mode.CONTROLNET_IMG2IMG),
        ({"image": IMAGE, "mask_image": IMAGE}, Mode.CONTROLNET_INPAINT),
    ],
)
def test_the_images_select_the_controlnet_mode(catalogue: Catalogue, fields: dict[str, str], mode: Mode) -> None:
    sent = request("controlnet", controls=[edges("xl")], **fields)
    images = {field: StoredImage(f"inputs/{field}", 64, 64) for field in [*fields, "controls.0.image"]}
    parameters = accepted(catalogue, sent, **images)
    assert parameters.mode is mode
    assert parameters.controls[0].image == "inputs/controls.0.image"


def test_a_t2i_adapter_needs_an_image_and_sides_that_it_can_halve(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest) as error:
        check(request("controlnet", controls=[{"controlnet": "sketch-xl"}]), catalogue)
    assert [problem.field for problem in error.value.problems] == ["controls.0.image"]
    sent = request("controlnet", controls=[{"controlnet": "sketch-xl", "image": IMAGE}], width=64, height=72)
    parameters = accepted(catalogue, sent, **{"controls.0.image": StoredImage("one", 64, 64)})
    with pytest.raises(InvalidRequest) as error:
        require_t2i_size(parameters, catalogue)
    (problem,) = error.value.problems
    assert (problem.field, problem.allowed) == ("height", [64, 80])
    require_t2i_size(parameters.model_copy(update={"height": 80}), catalogue)


def test_sd3_inpaints_with_a_controlnet_that_reads_the_jobs_image(catalogue: Catalogue) -> None:
    sent = request(
        "controlnet",
        model="three",
        controls=[{"controlnet": "inpaint-three"}],
        image=IMAGE,
        mask_image=IMAGE,
        width=64,
        height=64,
    )
    images = {field: StoredImage(field, 64, 64) for field in ("image", "mask_image")}
    parameters = accepted(catalogue, sent, **images)
    assert (parameters.mode, parameters.strength, parameters.controls[0].image) == (
        Mode.CONTROLNET_INPAINT,
        None,
        None,
    )


def test_reference_images_are_accepted_in_every_mode_of_their_family(catalogue: Catalogue) -> None:
    for adapters in ([], [look()], [look(), look(mask=IMAGE)]):
        check(request("txt2img", ip_adapters=adapters), catalogue)
    check(request("controlnet", controls=[edges("xl")], image=IMAGE, ip_adapters=[look()]), catalogue)
    for entries in ([], [look("one", scale=0.7), look("one", scale=0.3)]):
        check(request("txt2img", model="one", ip_adapters=entries), catalogue)


@pytest.mark.parametrize("entry", [{"images": []}, {"images": [IMAGE] * 5}, {"scale": 2.5}, {"scale": -1}])
def test_how_many_reference_images_there_may_be_and_their_weight_are_bounded(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request("txt2img", ip_adapters=[look(**entry)])
