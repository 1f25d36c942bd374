"""The families' classes and arguments against the pipelines of diffusers."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, FAMILIES, MODE_FIELDS, Mode
from contracts.requests.entries import Refiner
from contracts.requests.entry_parameters import ControlParameters
from contracts.requests.parameters import JobParameters
from tests.support.jobs import make_job, model_of
from worker.families import DiffusersFamily, get_family
from worker.families.inputs import GenerationInputs
from worker.pool.pipelines import derive
from worker.pool.pool import Pool

#: Fields that every mode of every family takes, beside those about delivery.
COMMON_FIELDS = frozenset({"prompt", "width", "height", "num_inference_steps", "guidance_scale"})
#: Fields that Darkroom applies itself; no pipeline takes them.
HANDLED_FIELDS = frozenset(
    {
        "mask_blur",
        "padding_mask_crop",
        "fit",
        "ip_adapters",
        "textual_inversions",
        "guidance",
        "hires",
        "dynamic_thresholding",
        "cascade",
    }
)
EVERY_MODE = [(family.id, mode) for family in ALL_FAMILIES.values() for mode in family.modes]

#: Two values that every field may take; the second must arrive where the first did.
VALUES: dict[str, tuple[Any, Any]] = {
    "prompt": ("a", "b"),
    "class_label": (1, 2),
    "prompt_2": ("c", "d"),
    "prompt_3": ("e", "f"),
    "negative_prompt": ("g", "h"),
    "width": (64, 128),
    "height": (64, 128),
    "layers": (2, 3),
    "num_inference_steps": (2, 3),
    "guidance_scale": (2.0, 3.0),
    "true_cfg_scale": (2.0, 3.0),
    "guidance_rescale": (0.1, 0.2),
    "clip_skip": (1, 2),
    "max_sequence_length": (32, 64),
    "original_size": ((1, 2), (3, 4)),
    "crops_coords_top_left": ((1, 2), (3, 4)),
    "target_size": ((1, 2), (3, 4)),
    "strength": (0.5, 0.6),
    "refiner": (Refiner(model="r", switch_at=0.5), Refiner(model="r", switch_at=0.6)),
}
#: Required fields of a job that a mode does not take.
_MISSING = {name: None for name, field in JobParameters.model_fields.items() if field.is_required()}
#: The part of a pipeline's config that families read.
CONFIG = {"force_zeros_for_empty_prompt": True, "is_distilled": False}
#: These img2img pipelines make an image as large as the one they start from, which Darkroom scales to the size.
SIZE_FROM_IMAGE = {
    **{(family, Mode.IMG2IMG): {"width", "height"} for family in ("sdxl", "sd15", "kolors", "deepfloyd")},
    ("deepfloyd", Mode.INPAINT): {"width", "height"},
    **{("deepfloyd-ii", mode): {"width", "height"} for mode in (Mode.IMG2IMG, Mode.INPAINT)},
    ("qwen-image-layered", Mode.EDIT): {"width", "height"},
}


def _fields_of(family: str, mode: Mode) -> frozenset[str]:
    spec = ALL_FAMILIES[family]
    fixed = {"width", "height"} if spec.fixed_size else set[str]()
    return (spec.modes[mode] | COMMON_FIELDS) - HANDLED_FIELDS - set(spec.refuses) - fixed


def _inputs(family: str, mode: Mode, which: dict[str, int]) -> GenerationInputs:
    """Inputs with every granted field set; `which` picks the second value of some."""
    granted = _fields_of(family, mode)

    def value(field: str) -> Any:
        return VALUES[field][which.get(field, 0)]

    fields = {field: value(field) for field in granted & VALUES.keys()}
    images = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")]
    control = ControlParameters(
        controlnet="any", image="inputs/c.png", preprocess=None,
        conditioning_scale=0.5, guidance_start=0.1, guidance_end=0.9,
    )  # fmt: skip
    controls = (control,) if "controls" in granted else ()
    job = JobParameters.model_construct(**{**_MISSING, **fields, "mode": mode, "controls": controls})
    return GenerationInputs(
        job=job,
        image=images[which.get("image", 0)] if "image" in granted else None,
        mask=images[which.get("mask_image", 0)] if "mask_image" in granted else None,
        controls=[images[which.get(name, 0)] for name in ("controls", "control_image") if name in granted],
        references=[images[which.get("references", 0)]] if "references" in granted else [],
    )


def _pipeline_class(family: DiffusersFamily, mode: Mode) -> Any:
    return getattr(diffusers, family.pipelines[mode])


@pytest.mark.parametrize(("family", "mode"), EVERY_MODE)
def test_the_pipeline_takes_every_argument_that_the_family_gives_it(family: str, mode: Mode) -> None:
    code = get_family(family)
    taken = inspect.signature(_pipeline_class(code, mode).__call__).parameters
    assert set(code.arguments(_inputs(family, mode, {}))) <= set(taken)


@pytest.mark.parametrize(("family", "mode"), EVERY_MODE)
def test_every_granted_field_reaches_the_pipeline(family: str, mode: Mode) -> None:
    code, fields = get_family(family), _fields_of(family, mode) - SIZE_FROM_IMAGE.get((family, mode), set())
    if mode is Mode.CONTROLNET_INPAINT and ALL_FAMILIES[family].inpaint_control_only:
        fields -= {"controls"}  # the ControlNet is given the image and the mask; there is no other image
    usual = _given(code, _inputs(family, mode, {}))
    assert [field for field in sorted(fields) if _given(code, _inputs(family, mode, {field: 1})) == usual] == []


def _given(code: DiffusersFamily, inputs: GenerationInputs) -> list[Any]:
    """All arguments of a pipeline and its encoders for these inputs."""
    encoding = code.encoding
    if encoding is None:
        return [code.arguments(inputs)]
    return [
        {name: _comparable(value) for name, value in code.arguments(inputs).items()},
        encoding.prompt_of(inputs),
        encoding.negative_prompt_of(inputs, CONFIG),
    ]


def _comparable(value: Any) -> Any:
    """Tensors as lists, which `==` compares as a whole."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [_comparable(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("family", [family for family in FAMILIES if get_family(family).encoding is not None])
def test_the_encoders_take_every_argument_that_the_family_gives_them(family: str) -> None:
    code, inputs = get_family(family), _inputs(family, Mode.TXT2IMG, {})
    taken = inspect.signature(_pipeline_class(code, Mode.TXT2IMG).encode_prompt).parameters
    encoding = code.prompt_encoding
    negative = encoding.negative_prompt_of(inputs, CONFIG)
    for prompt in (encoding.prompt_of(inputs), *([] if negative is None else [negative])):
        assert {*prompt.arguments, *encoding.constants} <= set(taken)


def test_these_tests_cover_every_field() -> None:
    images = {"image", "mask_image", "control_image", "controls", "references"}
    assert set(VALUES) | HANDLED_FIELDS | images == MODE_FIELDS | COMMON_FIELDS


_SUFFIXES = {
    Mode.TXT2IMG: ("Pipeline",),
    Mode.IMG2IMG: ("Img2ImgPipeline",),
    Mode.INPAINT: ("InpaintPipeline", "InpaintingPipeline"),
    Mode.CONTROLNET: ("ControlNetPipeline",),
    Mode.CONTROLNET_IMG2IMG: ("ControlNetImg2ImgPipeline",),
    Mode.CONTROLNET_INPAINT: ("ControlNetInpaintPipeline", "ControlNetInpaintingPipeline"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pipeline_that_diffusers_has_for_a_mode_is_used(family: str) -> None:
    prefix = FAMILIES[family].pipeline.removesuffix("Pipeline")
    there = {
        mode: name
        for mode, suffixes in _SUFFIXES.items()
        for suffix in suffixes
        if hasattr(diffusers, name := prefix + suffix)
    }
    used = {mode: name for mode, name in get_family(family).pipelines.items() if mode in _SUFFIXES}
    assert used == there
    assert set(FAMILIES[family].modes) & set(_SUFFIXES) == set(there)


def test_every_row_of_the_catalogue_has_a_family_file(catalogue: Catalogue) -> None:
    rows = (*catalogue.models, *catalogue.loras, *catalogue.controlnets)
    assert rows
    for row in rows:
        assert get_family(row.family_spec.id).id == row.family_spec.id


@pytest.mark.parametrize("family", FAMILIES)
def test_named_components_have_the_named_classes(family: str, catalogue: Catalogue, pool: Pool) -> None:
    code, base = get_family(family), pool.model(model_of(catalogue, family)).base
    assert type(base.components[code.denoiser]).__name__ == code.denoiser_class
    t5 = {name for name, part in base.components.items() if type(part).__name__ == "T5EncoderModel"}
    assert t5 == ({code.t5} if code.t5 else set())


@pytest.mark.parametrize(
    "family", [family.id for family in FAMILIES.values() if "guidance_scale" not in family.refuses]
)
def test_a_missing_guidance_scale_is_passed_as_no_guidance(family: str) -> None:
    inputs = _inputs(family, Mode.TXT2IMG, {})
    without = GenerationInputs(inputs.job.model_copy(update={"guidance_scale": None}))
    assert get_family(family).arguments(without)["guidance_scale"] == FAMILIES[family].guidance_off


def test_sd3_controlnet_pipelines_draw_from_the_global_generator(pool: Pool, catalogue: Catalogue) -> None:
    """Upstream behaviour that the family's `patch` works round (diffusers 0.42)."""
    model = pool.ready(make_job(catalogue, "sd3", Mode.CONTROLNET), 1)
    control = Image.effect_noise((64, 64), 100).convert("RGB")

    def generate(pipeline: Any, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        latents: torch.Tensor = pipeline(
            "a red circle", control_image=control, width=64, height=64, num_inference_steps=1,
            generator=torch.Generator().manual_seed(7), output_type="latent",
        ).images  # fmt: skip
        return latents

    controlnet = model.pipeline(Mode.CONTROLNET, "flow_euler", ["sd3-hint"]).controlnet
    pipeline = derive(diffusers.StableDiffusion3ControlNetPipeline, model.base, controlnet=controlnet)
    pipeline.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        assert not torch.equal(generate(pipeline, 1), generate(pipeline, 2))
        get_family("sd3").patch(pipeline)
        assert torch.equal(generate(pipeline, 1), generate(pipeline, 2))


def test_the_classes_that_a_catalogue_is_checked_for_are_those_that_load_it() -> None:
    for family in ALL_FAMILIES.values():
        loads = get_family(family.id)
        assert (family.pipeline, family.controlnet) == (loads.checkpoint_class, loads.controlnet)
