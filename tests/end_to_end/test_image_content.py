"""What the images show, judged by colour and shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy
import pytest
from PIL import Image

from models.judge import judge, measure_overlap
from models.training.data.drawing import Scene, render, render_silhouette
from models.training.data.effects import EFFECTS, measure
from tests.support.combinations import ALL, usual_or_all
from tests.support.images import draw_shape, framed_mask, to_data_url
from tests.support.running_service import Json, RunningService

#: colour, shape, background; the last four in `make judge`
SCENES = [
    ("red", "circle", "blue"),
    ("yellow", "star", "purple"),
    ("white", "triangle", "black"),
    ("green", "square", "white"),
    ("cyan", "cross", "red"),
    ("purple", "square", "yellow"),
][: None if ALL else 2]


#: The shipped checkpoint of every family.
SDXL, SD3, FLUX = MODELS = ("shapes-sdxl", "shapes-sd3", "shapes-flux")


def each_model(usual: str) -> pytest.MarkDecorator:
    """Try one model; all of them in `make judge`, which judges their weights by more images, too."""
    return pytest.mark.parametrize("model", usual_or_all(usual, MODELS))


#: Fewer than the models take by default: enough for what is judged here.
STEPS = 6


def prompt_of(colour: str, shape: str, background: str) -> str:
    return f"a {colour} {shape} on a {background} background"


def share(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers)


def run_all(service: RunningService, task: str, bodies: Sequence[Json], steps: int = STEPS) -> list[Image.Image]:
    """Submit all jobs before waiting for the first; returns their images."""
    ids = [service.submit(task, num_inference_steps=steps, **body)["id"] for body in bodies]
    return [service.image_of(service.wait(id)).convert("RGB") for id in ids]


def each_scene(**fields: object) -> Iterator[Json]:
    for seed, scene in enumerate(SCENES):
        yield {"prompt": prompt_of(*scene), "seed": seed, **fields}


@pytest.mark.parametrize("model", MODELS)
def test_images_have_the_colours_and_shapes_of_the_prompt(service: RunningService, model: str) -> None:
    verdicts = [judge(image) for image in run_all(service, "txt2img", list(each_scene(model=model)))]
    for attribute, index in (("colour", 0), ("shape", 1), ("background", 2)):
        right = [
            getattr(verdict, attribute) == scene[index] for verdict, scene in zip(verdicts, SCENES, strict=True)
        ]
        assert share(right) >= 0.8, (attribute, verdicts)


@each_model(SD3)
def test_img2img_moves_from_the_image_to_the_prompt_as_strength_grows(service: RunningService, model: str) -> None:
    source = draw_shape("circle", "red", "blue")
    before = numpy.asarray(source, float)
    strengths = [0.15, 0.4, 0.7, 1.0] if ALL else [0.15, 0.7, 1.0]
    bodies = [
        {
            "model": model,
            "prompt": prompt_of("yellow", "square", "green"),
            "seed": 3,
            "image": to_data_url(source),
            "strength": strength,
        }
        for strength in strengths
    ]
    images = run_all(service, "img2img", bodies, steps=8)
    distances = [numpy.abs(numpy.asarray(image, float) - before).mean() for image in images]
    assert distances == sorted(distances), distances
    assert judge(images[0]).background == "blue"
    assert (judge(images[-1]).colour, judge(images[-1]).background) == ("yellow", "green")


@each_model(FLUX)
def test_inpainting_follows_the_prompt_inside_the_mask_and_changes_nothing_outside(
    service: RunningService, model: str
) -> None:
    source = draw_shape("circle", "red", "blue")
    image = service.generate(
        "inpaint",
        model=model,
        prompt=prompt_of("yellow", "square", "blue"),
        image=to_data_url(source),
        mask_image=to_data_url(framed_mask()),
        strength=1.0,
        seed=4,
        num_inference_steps=STEPS,
    )
    outside = numpy.asarray(framed_mask()) == 0
    assert (numpy.asarray(source)[outside] == numpy.asarray(image)[outside]).all()
    verdict = judge(image)
    assert (verdict.colour, verdict.shape, verdict.background) == ("yellow", "square", "blue")


def test_an_edit_changes_what_it_is_told_to_and_keeps_the_rest(service: RunningService) -> None:
    reference = to_data_url(render(Scene("circle", "yellow", "blue")))
    image = service.generate("edit", model="shapes-kontext", prompt="make it red", references=[reference], seed=0)
    verdict = judge(image)
    assert (verdict.colour, verdict.shape, verdict.background) == ("red", "circle", "blue")


def test_a_negative_prompt_changes_the_image(service: RunningService) -> None:
    body: Json = {"prompt": "a circle on a white background", "seed": 5, "num_inference_steps": STEPS}
    plain = service.generate("txt2img", **body)
    colour = judge(plain).colour
    negated = service.generate("txt2img", negative_prompt=f"a {colour} circle", **body)
    assert numpy.abs(numpy.asarray(plain, int) - numpy.asarray(negated, int)).mean() > 3
    assert judge(negated).colour != colour


def silhouette(shape: str) -> Image.Image:
    """Draw a white shape on black."""
    return render_silhouette(Scene(shape, "white", "black"))


@each_model(SDXL)
def test_a_controlnet_makes_the_shape_appear_where_its_image_has_it(service: RunningService, model: str) -> None:
    shapes = ["circle", "square", "triangle", "star"] if ALL else ["square", "triangle"]
    bodies: list[Json] = [
        {
            "model": model,
            # The prompt names no shape, so any shape comes from the control image.
            "prompt": "a red shape on a white background",
            "seed": seed,
            "controls": [
                {
                    "controlnet": f"{model}-silhouette",
                    "image": to_data_url(silhouette(shape)),
                    "conditioning_scale": scale,
                }
            ],
        }
        for scale, these in ((1.0, shapes), (0.0, shapes[:2]))
        for seed, shape in enumerate(these)
    ]
    images = run_all(service, "controlnet", bodies)
    overlaps = []
    for image, shape in zip(images, [*shapes, *shapes[:2]], strict=True):
        wanted = numpy.asarray(silhouette(shape).convert("L")) > 127
        overlaps.append(measure_overlap(judge(image).mask, wanted))
    guided, free = numpy.mean(overlaps[: len(shapes)]), numpy.mean(overlaps[len(shapes) :])
    assert guided > 0.8, overlaps
    assert guided > free + 0.1, overlaps


def photograph(shape: str) -> Image.Image:
    """A shape as a camera sees it: large, unevenly lit, with noise and a soft outline; neither white nor black."""
    drawing = render(Scene(shape, "yellow", "blue")).resize((384, 384), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(drawing, float) * numpy.linspace(0.6, 1.0, 384)[None, :, None]
    noise = numpy.random.default_rng(1).normal(0, 6, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(numpy.uint8))


def test_a_photo_becomes_the_control_image_by_a_preprocessor(service: RunningService) -> None:
    shapes = ["circle", "square", "triangle"] if ALL else ["square", "triangle"]
    free_shapes = shapes if ALL else shapes[1:]
    control: Json = {"controlnet": "shapes-sdxl-canny", "preprocess": "canny"}
    bodies: list[Json] = [
        {
            "prompt": "a red shape on a white background",
            "seed": seed,
            "controls": [control | {"image": to_data_url(photograph(shape)), "conditioning_scale": scale}],
        }
        for scale, these in ((1.0, shapes), (0.0, free_shapes))
        for seed, shape in enumerate(these)
    ]
    images = run_all(service, "controlnet", bodies)
    wanted = [numpy.asarray(silhouette(shape).convert("L")) > 127 for shape in (*shapes, *free_shapes)]
    overlaps = [measure_overlap(judge(image).mask, mask) for image, mask in zip(images, wanted, strict=True)]
    guided, free = numpy.mean(overlaps[: len(shapes)]), numpy.mean(overlaps[len(shapes) :])
    assert guided > 0.8, overlaps
    assert guided > free + 0.1, overlaps


@pytest.mark.parametrize("scheduler", usual_or_all("unipc", ("ddim", "dpmpp_2m", "unipc", "euler_a")))
def test_every_scheduler_follows_the_prompt(service: RunningService, scheduler: str) -> None:
    verdict = judge(
        service.generate(
            "txt2img",
            prompt=prompt_of("red", "circle", "blue"),
            scheduler=scheduler,
            seed=6,
            num_inference_steps=STEPS,
        )
    )
    assert (verdict.colour, verdict.background) == ("red", "blue")


def test_a_shape_appears_at_the_requested_position(service: RunningService) -> None:
    verdict = judge(
        service.generate(
            "txt2img",
            prompt="a small red circle at the top left on a white background",
            seed=7,
            num_inference_steps=STEPS,
        )
    )
    assert (verdict.colour, verdict.position) == ("red", "top left")


# `make judge` tries all of them, and SHA256SUMS holds their weights.
@pytest.mark.parametrize(("adapter", "model"), [*zip(EFFECTS, [*MODELS, SDXL], strict=True)][: None if ALL else 1])
def test_a_lora_has_its_effect_and_does_not_change_later_jobs(
    service: RunningService, model: str, adapter: str
) -> None:
    scene = Scene("crescent" if adapter == "crescent" else "square", "blue", "white", size="large")
    body: Json = {"model": model, "prompt": f"a large blue {scene.shape} on a white background", "seed": 8}
    body["num_inference_steps"] = STEPS
    before = service.run("txt2img", **body)
    amounts = [
        measure(
            adapter,
            service.generate("txt2img", loras=[{"name": f"{model}-{adapter}", "scale": scale}], **body),
            scene,
        )
        for scale in (0.0, 0.5, 1.0)
    ]
    assert amounts[2] > amounts[0] + 0.5, amounts
    assert amounts[0] - 0.05 <= amounts[1] <= amounts[2] + 0.05, amounts
    assert service.bytes_of(service.run("txt2img", **body)) == service.bytes_of(before)


@each_model(FLUX)
def test_two_loras_have_both_effects(service: RunningService, model: str) -> None:
    scene = Scene("square", "blue", "white", size="large")
    both = [{"name": f"{model}-stripes"}, {"name": f"{model}-outline"}]
    prompt = "a large blue square on a white background"
    image = service.generate("txt2img", model=model, prompt=prompt, seed=8, num_inference_steps=STEPS, loras=both)
    assert measure("stripes", image, scene) > 0.4
    assert measure("outline", image, scene) > 0.4
