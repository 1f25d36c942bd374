"""Requests for models whose prompts a language model reads: what counts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import ALL_FAMILIES, FAMILIES, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.memory.workload import workload_of
from contracts.prompts.tokens import TokenUse
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.prompts.counts import count_tokens
from contracts.requests.schema import REQUESTS
from contracts.weights.checkpoint_limits import with_checkpoint_limits

CATALOGUE = Catalogue(
    root=Path("/"),
    default_model="z-image",
    models=(
        ModelSpec(id="z-image", family="z-image", source="org/z-image"),
        ModelSpec(id="qwen-image", family="qwen-image", source="org/qwen-image"),
        ModelSpec(id="edit", family="qwen-image", source="org/edit", pipeline="QwenImageEditPipeline"),
        ModelSpec(id="plus", family="qwen-image", source="org/plus", pipeline="QwenImageEditPlusPipeline"),
        ModelSpec(id="layered", family="qwen-image", source="org/layered", pipeline="QwenImageLayeredPipeline"),
    ),
    controlnets=(
        ControlNetSpec(id="union", family="z-image", source="org/union"),
        ControlNetSpec(id="first", family="z-image", source="org/first", reads_masks=False),
        ControlNetSpec(id="qwen-union", family="qwen-image", source="org/qwen-union"),
    ),
)


def problems_of(task: Task, catalogue: Catalogue = CATALOGUE, **body: Any) -> list[FieldProblem]:
    text = json.dumps({"prompt": "a red circle", "model": "z-image", **body})
    try:
        check(REQUESTS[task].model_validate_json(text, strict=True), catalogue)
    except InvalidRequest as refused:
        return list(refused.problems)
    return []


def control(name: str = "union", **more: Any) -> dict[str, Any]:
    return {"controlnet": name, "image": "upload:x", **more}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"controls": [control(), control("first")]}, "controls", "one ControlNet at a time, got 2"),
        ({"controls": [control(guidance_start=0.2)]}, "controls.0.guidance_start", "act at every step; remove it"),
        ({"controls": [control(guidance_end=0.5)]}, "controls.0.guidance_end", "act at every step; remove it"),
        (
            {"controls": [control("first")], "image": "upload:x", "mask_image": "upload:y"},
            "controls.0.controlnet",
            "first has no channels for a mask; remove mask_image",
        ),
        ({"controls": [control()], "image": "upload:x"}, "image", "does not support controlnet_img2img"),
        ({"controls": [control()], "guidance_rescale": 0.5}, "guidance_rescale", "is not supported by z-image"),
    ],
)
def test_what_a_controlnet_of_z_image_cannot_do_is_refused_by_name(
    body: dict[str, Any], field: str, reason: str
) -> None:
    (problem,) = problems_of(Task.CONTROLNET, **body)
    assert problem.field == field
    assert reason in problem.message


@pytest.mark.parametrize(
    ("task", "body", "field", "reason"),
    [
        (Task.TXT2IMG, {"guidance_scale": 4}, "guidance_scale", "has no effect on qwen-image; remove it"),
        (Task.TXT2IMG, {"true_cfg_scale": 1, "negative_prompt": "a"}, "negative_prompt", "true_cfg_scale is 1"),
        (Task.TXT2IMG, {"width": 1000}, "width", "must be a multiple of 16, got 1000 (nearest: 992, 1008)"),
        (Task.TXT2IMG, {"clip_skip": 1}, "clip_skip", "is not supported by qwen-image"),
        (
            Task.CONTROLNET,
            {"controls": [control("qwen-union"), control("qwen-union")]},
            "controls",
            "one ControlNet at a time, got 2",
        ),
        (
            Task.CONTROLNET,
            {"controls": [control("qwen-union")], "image": "upload:x", "mask_image": "upload:y"},
            "controls.0.controlnet",
            "qwen-union can be used on qwen-image only without mask_image",
        ),
        (
            Task.CONTROLNET,
            {"controls": [control("qwen-union")], "image": "upload:x"},
            "image",
            "does not support controlnet_img2img",
        ),
    ],
)
def test_what_qwen_image_cannot_do_is_refused_by_name(
    task: Task, body: dict[str, Any], field: str, reason: str
) -> None:
    (problem,) = problems_of(task, model="qwen-image", **body)
    assert problem.field == field
    assert reason in problem.message


@pytest.mark.parametrize(
    ("task", "body", "field", "reason"),
    [
        (
            Task.EDIT,
            {"model": "edit", "references": ["upload:x"] * 2},
            "references",
            "at most 1 entry for edit, got 2",
        ),
        (
            Task.EDIT,
            {"model": "plus", "references": ["upload:x"] * 5},
            "references",
            "at most 4 entries for plus, got 5",
        ),
        (Task.EDIT, {"max_sequence_length": 64}, "max_sequence_length", "is not supported by plus"),
        (Task.EDIT, {"fit": "pad"}, "fit", "is not supported by plus"),
        (Task.EDIT, {"guidance_scale": 4}, "guidance_scale", "has no effect on plus; remove it"),
        (Task.EDIT, {"prompt": "a <|image_pad|> b"}, "prompt", "has <|image_pad|>, which stands for an image"),
        (Task.EDIT, {"negative_prompt": "<|video_pad|>"}, "negative_prompt", "stands for an image"),
        (Task.EDIT, {"long_prompt": "truncate"}, "long_prompt", "refuse"),
        (Task.TXT2IMG, {}, "model", "plus (qwen-image-edit-plus) does not support txt2img"),
        (Task.EDIT, {"layers": 2}, "layers", "is not supported by plus (qwen-image-edit-plus) in edit; remove it"),
        (
            Task.EDIT,
            {"model": "layered", "output_format": "jpeg"},
            "output_format",
            "layers of layered are transparent; set it to png or webp",
        ),
        (
            Task.EDIT,
            {"model": "layered", "num_images": 2},
            "num_images",
            "the layers of one image, got 2; send a request for each",
        ),
    ],
)
def test_what_edits_of_qwen_image_cannot_do_is_refused_by_name(
    task: Task, body: dict[str, Any], field: str, reason: str
) -> None:
    references = {"references": ["upload:x"]} if task is Task.EDIT else {}
    (problem,) = problems_of(task, **{"model": "plus", **references, **body})
    assert problem.field == field
    assert reason in problem.message


def test_qwen_image_reads_prompts_of_1024_tokens() -> None:
    assert problems_of(Task.TXT2IMG, model="qwen-image", max_sequence_length=1024) == []
    (problem,) = problems_of(Task.TXT2IMG, max_sequence_length=1024)
    assert problem.message == "must be at most 512 for z-image models, got 1024"


def test_a_prompt_of_an_edit_may_have_as_many_tokens_as_its_pipeline_reads() -> None:
    stored = {"references.0": StoredImage("inputs/a.png", 640, 320)}
    request = REQUESTS[Task.EDIT](model="plus", prompt="word " * 1030, references=["upload:x"])  # type: ignore[call-arg]
    job = resolve(request, check(request, CATALOGUE), stored)
    counts = count_tokens(
        ALL_FAMILIES["qwen-image-edit-plus"], job, {"text_encoder": lambda text: [(1, 0)] * len(text.split())}
    )
    assert counts.prompt == {"text_encoder": TokenUse(given=1030, used=1024)}
    assert counts.problems[0].message.endswith("of which 1024 can be read; shorten it")


def test_references_that_a_pipeline_scales_are_planned_at_that_size() -> None:
    stored = {f"references.{index}": StoredImage("inputs/a.png", 640, 320) for index in range(2)}
    request = REQUESTS[Task.EDIT](model="plus", prompt="a", references=["upload:x"] * 2)  # type: ignore[call-arg]
    job = resolve(request, check(request, CATALOGUE), stored)
    assert [(one.width, one.height, one.scaled_by_pipeline) for one in job.references] == [(1440, 736, True)] * 2
    shape = workload_of("qwen-image-edit-plus", job).shape
    assert shape.reference_pixels == 2 * 1440 * 736
    assert shape.text_tokens > 2 * 544 * 256 // 28**2


def test_a_picture_is_read_at_the_output_s_size_by_what_makes_its_layers_which_are_planned_beside_it() -> None:
    stored = {"references.0": StoredImage("inputs/a.png", 640, 320)}
    body: Any = {"model": "layered", "prompt": "a", "references": ["upload:x"], "width": 320, "height": 640}
    request = REQUESTS[Task.EDIT](**body | {"layers": 3, "fit": "pad"})
    job = resolve(request, check(request, CATALOGUE), stored)
    assert [(one.width, one.height, one.scaled_by_pipeline) for one in job.references] == [(320, 640, False)]
    assert workload_of("qwen-image-layered", job).shape.sequence_pixels == 5 * 320 * 640
    assert (len(job.seeds), job.pixels, job.record_version) == (3, 3 * 320 * 640, 3)
    assert job.work["megapixel_steps"] == pytest.approx(50 * 5 * 320 * 640 / 1e6)


def test_a_controlnet_of_z_image_may_have_a_mask() -> None:
    body: dict[str, Any] = {
        "controls": [control(conditioning_scale=0.5)],
        "image": "upload:x",
        "mask_image": "upload:y",
    }
    assert problems_of(Task.CONTROLNET, **body) == []


def test_words_that_a_language_model_reads_cannot_be_weighted() -> None:
    (problem,) = problems_of(Task.TXT2IMG, prompt="a (red:1.4) circle", prompt_syntax="a1111")
    assert problem.field == "prompt"
    assert problem.message.endswith("write the words alone")


def test_guidance_of_z_image_is_off_at_0_and_a_negative_prompt_needs_more() -> None:
    assert problems_of(Task.TXT2IMG, guidance_scale=0.5, negative_prompt="a blue square") == []
    (problem,) = problems_of(Task.TXT2IMG, guidance_scale=0, negative_prompt="a blue square")
    assert problem.field == "negative_prompt"
    assert "set that above 0" in problem.message


def test_the_tokens_of_the_chat_template_count() -> None:
    request = REQUESTS[Task.TXT2IMG](prompt="word " * 40, max_sequence_length=32)
    job = resolve(request, check(request, CATALOGUE), {})
    counts = count_tokens(FAMILIES["z-image"], job, {"text_encoder": lambda text: [(1, 0)] * len(text.split())})
    assert counts.prompt == {"text_encoder": TokenUse(given=40, used=29)}


@pytest.mark.parametrize(
    ("shift", "own", "defaults"),
    [(6.0, {}, (50, 4.0)), (3.0, {}, (8, 0.0)), (3.0, {"num_inference_steps": 12}, (12, 0.0))],
)
def test_a_distilled_checkpoint_is_known_by_its_scheduler(
    tmp_path: Path, shift: float, own: dict[str, Any], defaults: tuple[int, float]
) -> None:
    (tmp_path / "scheduler").mkdir()
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    row = ModelSpec(id="z-image", family="z-image", source=str(tmp_path), defaults=own)
    (known,) = with_checkpoint_limits(CATALOGUE.model_copy(update={"models": (row,)})).models
    assert (known.default("num_inference_steps"), known.default("guidance_scale")) == defaults


@pytest.mark.parametrize(("channels", "reads_masks"), [(16, False), (33, True)])
def test_the_configuration_of_a_controlnet_says_whether_it_reads_masks(
    tmp_path: Path, channels: int, reads_masks: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"control_in_dim": channels}))
    row = ControlNetSpec(id="union", family="z-image", source=str(tmp_path))
    (known,) = with_checkpoint_limits(CATALOGUE.model_copy(update={"controlnets": (row,)})).controlnets
    assert known.reads_masks is reads_masks
