"""What lists of a request hold: LoRAs, IP-Adapters, textual inversions and controls; its second stages.

Each entry is declared once, for the request and for the stored parameters.
"""

from __future__ import annotations

from pydantic import Field

from contracts.catalogue.families import Mode
from contracts.catalogue.rows.networks import LANCZOS
from contracts.left_out_fields import OrLeftOut
from contracts.requests.images.image_fields import (
    ImagePromptMaskRef,
    ImagePromptRef,
    ImageRef,
)
from contracts.requests.strict_model import StrictModel

MAX_STEPS = 200
#: How many times as wide and high as its first images those of a cascade are.
CASCADE_SCALE = 4
#: Noise on those first images, as diffusers' pipelines of stage II have it; that of inpaints has none, nor has the
#: example of DeepFloyd's own (`aug_level`).
CASCADE_NOISE, CASCADE_INPAINT_NOISE = 250, 0


class Lora(StrictModel):
    """A LoRA and its weight."""

    name: str = Field(description="Id from `/v1/loras`; it must have been made for the model's family.")
    scale: float = Field(
        1.0, ge=-4, le=4, description="Weight of the LoRA; 0 turns it off, a negative weight inverts it."
    )


class IpAdapter(StrictModel):
    """An IP-Adapter and the images that it shows the model beside the prompt."""

    name: str = Field(description="Id from `/v1/ip-adapters`; it must have been made for the model's family.")
    images: tuple[ImagePromptRef, ...] = Field(
        min_length=1, max_length=4, description="Reference images; the result follows what they have in common."
    )
    scale: float = Field(
        1.0,
        ge=0,
        le=2,
        description="Weight of the reference images relative to the prompt; 0 turns them off. Redux "
        "weighs the prompt with them, so the scales of all its images should add up to about "
        "1.",
    )
    mask: ImagePromptMaskRef | None = Field(
        None, description="Where in the output the references act; not with Redux. Default: everywhere."
    )


class TextualInversion(StrictModel):
    """A textual inversion, whose vectors its word in a prompt stands for."""

    name: str = Field(
        description="Id from `/v1/textual-inversions`; it must have been made for the model's family. The id, or "
        "the `trigger` of that list, must appear in a prompt."
    )


class Refiner(StrictModel):
    """A model that takes over the last denoising steps of another one's images."""

    model: str = Field(description="Id from `/v1/models` of a refiner for the request's model.")
    switch_at: float = Field(
        0.8,
        ge=0.01,
        le=0.99,
        description="Fraction of the noise schedule after which the refiner takes over: with 0.8, the "
        "request's model runs the first 80 % of it.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Steps of the refiner's own schedule, of which it runs the end. Default: "
        "`num_inference_steps`.",
    )
    aesthetic_score: float = Field(
        6.0, ge=0, le=10, description="Rating by people, 0 to 10, that the refiner aims at."
    )
    negative_aesthetic_score: float = Field(
        2.5, ge=0, le=10, description="Rating that the refiner moves away from, with `guidance_scale` above 1."
    )

    def changes(self, mode: Mode, num_inference_steps: int) -> dict[str, object]:
        """Parameters by which its stage differs from the job; adapters and `clip_skip` act before it only."""
        return {
            "model": self.model,
            "mode": Mode.INPAINT if mode is Mode.INPAINT else Mode.IMG2IMG,
            "num_inference_steps": self.steps or num_inference_steps,
            "clip_skip": None,
            "guidance": None,
            "loras": (),
            "ip_adapters": (),
            "textual_inversions": (),
            "preview_vae": None,
        }


class Hires(StrictModel):
    """A second pass that makes larger images of the first ones: they are enlarged, and then generated from."""

    scale: float = Field(
        2.0,
        gt=1,
        le=4,
        description="How many times as wide and high the images become; sides are rounded to what the model can "
        "generate.",
    )
    upscaler: str = Field(
        LANCZOS,
        max_length=200,
        description="How images are enlarged: `lanczos` scales the image; `latent` scales its latents, "
        "which needs a `strength` of about 0.5 or more; an id from `/v1/upscalers` runs that "
        "upscaler, whose result is then scaled to the size.",
    )
    strength: float = Field(
        0.5,
        gt=0,
        le=1,
        description="How much the second pass changes the enlarged image: the fraction of its steps that is run.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Steps of the second pass, of which `strength` is run. Default: `num_inference_steps`.",
    )


class DynamicThresholding(StrictModel):
    """Rule that keeps the image that a model of pixels predicts at each step in range (arXiv 2205.11487)."""

    ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of an image's values, the smallest ones, that decide how far it is scaled down: at "
        "0.95 the largest 5 % are cut off. Without effect at a `max_value` of 1. Default: the checkpoint's own.",
    )
    max_value: float | None = Field(
        None,
        ge=1,
        le=100,
        description="Largest value by which an image is scaled down; 1 cuts off whatever is out of range, and "
        "scales nothing. Default: the checkpoint's own.",
    )

    def settings(self) -> dict[str, object]:
        """Entries of a scheduler's configuration that it changes."""
        given = {"dynamic_thresholding_ratio": self.ratio, "sample_max_value": self.max_value}
        return {"thresholding": True, **{name: value for name, value in given.items() if value is not None}}


class Cascade(StrictModel):
    """A model that makes larger images of another one's, as DeepFloyd IF's stage II of those of stage I."""

    model: str = Field(description="Id from `/v1/models` of a second stage for the request's model.")
    steps: int = Field(50, ge=1, le=MAX_STEPS, description="Its denoising steps.")
    guidance_scale: float = Field(
        4.0, ge=0, le=30, description="How closely it follows the prompt. 0 and 1 turn it off."
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="With an `image`, the fraction of its steps that is run. Default: the request's `strength`.",
    )
    noise_level: int | None = Field(
        None,
        ge=0,
        le=999,
        description="Noise that is first added to the smaller image, as a timestep of 0 to 1000: more "
        f"noise leaves the second stage more freedom. Default: {CASCADE_NOISE}, and {CASCADE_INPAINT_NOISE} in an "
        "inpaint.",
    )
    dynamic_thresholding: OrLeftOut[DynamicThresholding] = Field(
        None,
        description="Dynamic thresholding of the second stage; the request's own field applies to the "
        "first. Default: the checkpoint's own.",
    )


class StepCheck(StrictModel):
    """One step that is made again, to compare it with a signed receipt; no image is made.

    The hashes of what it makes are in the receipt's `checked_step`.
    """

    step: int = Field(ge=1, le=2 * MAX_STEPS, description="The step, counted from 1.")
    latents: str | None = Field(
        None,
        min_length=1,
        description="The latents that were kept after the steps before it: base64 of a safetensors file with "
        "tensors `step.001`, …, as `GET /v1/jobs/{id}/latents` has them. Which ones depends on the scheduler; an "
        "error names them. Default: none, for the first steps, which are made from noise.",
    )


class Control(StrictModel):
    """A ControlNet or T2I-Adapter, and its control image."""

    controlnet: str = Field(
        description="Id from `/v1/controlnets`; it must have been made for the model's family."
    )
    image: ImageRef | None = Field(
        None,
        description="Control image, given in the same ways as the image of an img2img job. Leave it out for a "
        "ControlNet of kind `inpaint`, which reads the job's own image.",
    )
    mode: OrLeftOut[int] = Field(
        None,
        ge=0,
        le=63,
        description="Kind of control, for a ControlNet that is a union of several: its position in `modes` of "
        "`/v1/controlnets`, from 0.",
    )
    preprocess: str | None = Field(
        None,
        description="Name from `/v1/preprocessors` of the preprocessor that makes the control image from "
        "`image`, such as a photo. `POST /v1/preprocess` returns the control image; "
        "preprocessors that are models (`runs: job`) make it in the job. Default: `image` is "
        "the control image itself.",
    )
    preprocess_options: OrLeftOut[dict[str, float]] = Field(
        None,
        max_length=16,
        description="Options of the preprocessor by their names in `/v1/preprocessors`: numbers such as "
        '`{"low_threshold": 50}`. Default: the preprocessor\'s own.',
    )
    conditioning_scale: float = Field(1.0, ge=0, le=2, description="Weight of the ControlNet; 0 turns it off.")
    guidance_start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the steps after which the ControlNet starts to act; less than `guidance_end`.",
    )
    guidance_end: float = Field(
        1.0, ge=0, le=1, description="Fraction of the steps after which the ControlNet stops acting."
    )
