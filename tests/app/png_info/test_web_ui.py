"""The `parameters` text alone says all of how an image was made: nothing of a request is lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.png_info.view import ImageParameters
from app.png_info.web_ui import read_parameters
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, IpAdapterSpec, LoraSpec
from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.receipt import Receipt, Weights
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from worker.generation.results.infotext import infotext

#: Read as one text, and written as another.
REWRITTEN = frozenset({*PROMPT_FIELDS, "prompt_syntax", "prompt_chunks", "batchable", "long_prompt"})
EDGES = {"controlnet": "edges", "image": "-", "conditioning_scale": 0.35, "guidance_end": 0.75}
FACES = {"name": "faces", "images": ["-", "-"], "scale": 0.6}
PICTURE = {"image": "-", "strength": 0.7}
MASKED = {"image": "-", "mask_image": "-", "strength": 0.8, "mask_blur": 3}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    models = (
        ModelSpec(id="xl", family="sdxl", source="xl", max_clip_skip=3),
        ModelSpec(id="three", family="sd3", source="three"),
        ModelSpec(id="one", family="flux", source="one"),
        ModelSpec(id="kontext", family="flux", source="kontext", pipeline="FluxKontextPipeline"),
        ModelSpec(id="canny", family="flux", source="canny", pipeline="FluxControlPipeline"),
        ModelSpec(id="layered", family="qwen-image", source="layered", pipeline="QwenImageLayeredPipeline"),
    )
    return Catalogue(
        root=tmp_path,
        default_model="xl",
        models=models,
        loras=(LoraSpec(id="tint", family="sdxl", source="tint.safetensors"),),
        controlnets=(
            ControlNetSpec(id="edges", family="sdxl", source="edges"),
            ControlNetSpec(id="hole", family="sd3", source="hole", kind="inpaint"),
        ),
        ip_adapters=(IpAdapterSpec(id="faces", family="sdxl", source="f.safetensors", image_encoder="clip"),),
    )


def parameters_of(task: str, fields: dict[str, Any], catalogue: Catalogue) -> JobParameters:
    request = REQUESTS[Task(task)].model_validate({"prompt": "a red circle", "seed": 7, **fields})
    model = check(request, catalogue)
    paths = [name for name in ("image", "mask_image", "control_image") if fields.get(name)]
    paths += [f"controls.{n}.image" for n, row in enumerate(fields.get("controls", ())) if "image" in row]
    paths += [f"references.{n}" for n in range(len(fields.get("references", ())))]
    for number, adapter in enumerate(fields.get("ip_adapters", ())):
        paths += [f"ip_adapters.{number}.images.{n}" for n in range(len(adapter["images"]))]
        paths += [f"ip_adapters.{number}.mask"] if "mask" in adapter else []
    return resolve(request, model, {path: StoredImage("inputs/x.png", 1024, 1024) for path in paths})


def read_back(parameters: JobParameters, n: int, catalogue: Catalogue) -> ImageParameters:
    weights = Weights(id=parameters.model, sha256="0" * 64)
    receipt = Receipt(parameters=parameters, seeds=parameters.seeds, model=weights)
    draft = read_parameters(infotext(receipt, parameters.seeds[n]), catalogue, surely=True)
    assert draft is not None
    return draft.settle(catalogue)


def completed(request: dict[str, Any], missing: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    """The request with what is missing, from the first one."""
    for path in missing:
        place: Any = request
        given: Any = fields
        *steps, last = path.split(".")
        for step in steps:
            place, given = (one[int(step)] if isinstance(one, list) else one[step] for one in (place, given))
        place[last] = given[last]
    return request


def spans_of(parameters: JobParameters) -> list[Any]:
    """What the encoders read of each prompt; an empty one is empty however it was written."""
    every = [parameters.chunks_of(name) for name in PROMPT_FIELDS]
    return [chunks and [[span for span in chunk if span[0]] for chunk in chunks] for chunks in every]


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("txt2img", {"clip_skip": 1}, []),
    ("txt2img", {"clip_skip": 3, "negative_prompt": ""}, []),
    ("txt2img", {"seed": 2**32 - 1, "num_images": 3}, []),
    ("txt2img", {"model": "one", "guidance_scale": 0.00001}, []),
    ("txt2img", {"prompt": "no Negative prompt: here", "negative_prompt": "green\nSteps: 1, Seed: 2, a: b"}, []),
    ("txt2img", {"prompt": "Negative prompt: a\n Negative prompt: (b)", "prompt_2": '"x", y: z\n[w]'}, []),
    ("txt2img", {"original_size": [9, 8], "crops_coords_top_left": [1, 2], "target_size": [7, 6]}, []),
    ("txt2img", {"speed": "fast", "num_inference_steps": 20, "prompt": "()[]\\" * 200 + " é 円 \x01"}, []),
    ("txt2img", {"model": "three", "prompt_3": "(three)", "max_sequence_length": 77}, []),
    ("txt2img", {"model": "one", "true_cfg_scale": 2.5, "negative_prompt": "x"}, []),
    ("txt2img", {"model": "canny", "control_image": "-"}, ["control_image"]),
    ("txt2img", {"ip_adapters": [FACES | {"mask": "-"}]}, ["ip_adapters.0.images", "ip_adapters.0.mask"]),
    ("img2img", {**PICTURE, "fit": "pad", "loras": [{"name": "tint", "scale": -0.123456789}]}, ["image"]),
    ("inpaint", {**MASKED, "padding_mask_crop": 0}, ["image", "mask_image"]),
    ("controlnet", {"controls": [EDGES, EDGES | {"guidance_start": 0.25}]},
     ["controls.0.image", "controls.1.image"]),
    ("controlnet", {**PICTURE, "controls": [EDGES]}, ["controls.0.image", "image"]),
    ("controlnet", {**MASKED, "controls": [EDGES]}, ["controls.0.image", "image", "mask_image"]),
    ("controlnet", {"model": "three", "image": "-", "mask_image": "-", "controls": [{"controlnet": "hole"}]},
     ["image", "mask_image"]),
    ("edit", {"model": "kontext", "references": ["-"]}, ["references"]),
    ("edit", {"model": "layered", "references": ["-"], "layers": 3}, ["references"]),
    ("edit", {**MASKED, "model": "kontext", "references": ["-"]}, ["references", "image", "mask_image"]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "fields", "missing"), CASES)
def test_the_request_that_is_read_back_is_the_same_job_once_its_images_are_added(
    task: str, fields: dict[str, Any], missing: list[str], catalogue: Catalogue
) -> None:
    before = parameters_of(task, fields, catalogue)

    answer = read_back(before, before.num_images - 1, catalogue)

    assert (answer.not_read, sorted(answer.missing), answer.n) == ([], sorted(missing), before.num_images - 1)
    assert answer.request is not None
    request = completed(answer.request, answer.missing, fields)
    after = parameters_of(task, request, catalogue)
    assert after.model_dump(exclude={*REWRITTEN}) == before.model_dump(exclude={*REWRITTEN})
    assert spans_of(after) == spans_of(before)


def test_clip_skip_has_the_meaning_of_the_web_ui(catalogue: Catalogue) -> None:
    text = "a red circle\nSteps: 9, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 1024x1024"

    texts = [text, f"{text}, Clip skip: 1", f"{text}, Clip skip: 2"]
    found = [read_parameters(one, catalogue, surely=True) for one in texts]

    assert [draft and draft.fields.get("clip_skip") for draft in found] == [None, None, 1]
    skipping = parameters_of("txt2img", {"clip_skip": 1}, catalogue)
    receipt = Receipt(parameters=skipping, seeds=[7], model=Weights(id="xl", sha256="0" * 64))
    assert "Clip skip: 2," in infotext(receipt, 7)


def test_what_a_controlnet_of_the_web_ui_does_and_none_here_can_is_named(catalogue: Catalogue) -> None:
    unit = "Module: canny, Model: edges [d14c016b], Weight: 0.5, Control Mode: ControlNet is more important"
    text = f'a\nSteps: 9, Seed: 5, Size: 64x64, ControlNet 0: "{unit}", ControlNet 1: "Module: none, Model: no"'

    both = read_parameters(text, catalogue, surely=True)
    known = read_parameters(text.partition(", ControlNet 1")[0], catalogue, surely=True)

    assert both is not None
    assert known is not None
    answer, without = known.settle(catalogue), both.settle(catalogue)
    assert answer.request is not None
    assert without.request is not None
    assert answer.request["controls"] == [{**answer.request["controls"][0], "controlnet": "edges"}]
    assert answer.missing == ["controls.0.image"]
    assert [entry.field for entry in answer.not_read] == ["ControlNet 0.Module", "ControlNet 0.Control Mode"]
    assert without.missing == ["controls"]
    assert "unknown ControlNet 'no'" in {entry.field: entry.reason for entry in without.not_read}["ControlNet 0"]
