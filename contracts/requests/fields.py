"""The request fields that shape an image, each declared once: name, type, bounds, default, description.

Requests (`schema.py`) and the parameters stored with a job (`parameters.py`) inherit them, and `defaults.py`
fills in their defaults by name. A bound may be widened but not narrowed: stored jobs are read with it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from contracts.catalogue.class_labels import CLASS_COUNT, MAX_LABEL
from contracts.catalogue.families import LongPrompt
from contracts.left_out_fields import LeftOutIfFalse, OrLeftOut
from contracts.requests.entries import (
    MAX_STEPS,
    Cascade,
    DynamicThresholding,
    Hires,
    IpAdapter,
    Lora,
    Refiner,
    StepCheck,
    TextualInversion,
)
from contracts.requests.guidance import Guidance
from contracts.requests.images.image_fields import (
    ControlRef,
    FitField,
    ImageRef,
    MaskBlur,
    MaskCrop,
    MaskRef,
    Strength,
)
from contracts.requests.strict_model import StrictModel

#: The largest seed that is drawn; and that a request may name: the one of the eighth image of a drawn one.
MAX_DRAWN_SEED = 2**32 - 1
MAX_SEED = MAX_DRAWN_SEED + 7
MIN_SIDE, MAX_SIDE = 64, 2048
DEFAULT_OUTPUT_QUALITY = 95
PROMPT_FIELDS = ("prompt", "prompt_2", "prompt_3", "negative_prompt")
#: All prompts of a job together, as they are stored: in a1111 syntax the text, and its weighted parts. A single
#: plain prompt of 10,000 characters always fits; how much of it the encoders read is a matter of `long_prompt`.
MAX_PROMPT_BYTES = 64 * 1024


#: Textual inversions of one request.
MAX_INVERSIONS = 16
Prompt = Annotated[str, Field(min_length=1, max_length=10_000)]
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
Coordinate = Annotated[int, Field(ge=0, le=8192)]
#: -1, as clients of other services write it, is the same as no seed.
Seed = Annotated[int, Field(ge=-1, le=MAX_SEED), AfterValidator(lambda seed: None if seed == -1 else seed)]
Speed = Literal["exact", "fast"]


def _read_class(value: object) -> int | str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and 0 <= value < CLASS_COUNT:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    if isinstance(value, str) and 0 < len(value) <= MAX_LABEL:
        return value
    raise ValueError(f"must be a number from 0 to {CLASS_COUNT - 1}, or a name of up to {MAX_LABEL} characters")


ClassLabel = Annotated[
    int | str,
    PlainValidator(_read_class),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": CLASS_COUNT - 1},
                {"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
            ]
        }
    ),
]
PromptSyntax = Literal["plain", "a1111"]
OutputFormat = Literal["png", "jpeg", "webp"]
#: Those that can say how opaque a pixel is.
TRANSPARENT_FORMATS: tuple[OutputFormat, ...] = ("png", "webp")


class ImageFields(StrictModel):
    """Fields of every task. None: the default of the model or its family, or nothing where neither has one."""

    model: str | None = Field(None, description="Id from `/v1/models`. Default: the service's default model.")
    prompt: Prompt | None = Field(
        None,
        description="What the image should show. Required, except for models that are prompted by a class, which "
        "refuse it.",
    )
    class_label: OrLeftOut[ClassLabel] = Field(
        None,
        description="What the image should show, for models that are prompted by a class instead of a "
        "text, such as DiT, which require it: the number of the class or one of its names in "
        "`classes` of `/v1/models/{id}`.",
    )
    prompt_2: Prompt | None = Field(None, description="Prompt of the second text encoder. Default: `prompt`.")
    prompt_3: Prompt | None = Field(None, description="Prompt of the third text encoder. Default: `prompt`.")
    negative_prompt: Annotated[str, Field(max_length=10_000)] | None = Field(
        None,
        description="What the image should not show. It acts by guidance: `guidance_scale` above 1, or for "
        "FLUX `true_cfg_scale` above 1. Default: empty.",
    )
    width: Side | None = Field(
        None,
        description="Width of the images in pixels; a multiple of 8, for some models of 16 or 32. Default: what "
        "follows from height and the aspect of `image`, or of the first control image; without height the "
        "width of `image`, or that of a size with its aspect where the model cannot generate it; without `image` "
        "the model's own.",
    )
    height: Side | None = Field(
        None,
        description="Height of the images in pixels; a multiple of 8, for some models of 16 or 32. Default: "
        "as for width, with the sides exchanged.",
    )
    prompt_syntax: PromptSyntax = Field(
        "plain",
        description="How the prompts are written. `plain`: every character is text. `a1111`: `(word:1.3)`, "
        "`((word))` and `[word]` weigh words, `BREAK` starts a new window, `<lora:NAME:SCALE>` in `prompt` "
        "applies a LoRA, and a backslash makes a bracket text.",
    )
    long_prompt: LongPrompt | None = Field(
        None,
        description="What happens to a prompt that an encoder cannot read at once. `chunk`: CLIP encoders read it "
        "in windows of 75 tokens, up to 32; T5 reads `max_sequence_length`. `truncate`: every encoder reads the "
        "beginning. `refuse`: the request is refused. `prompt_tokens` of the answer says what was read. "
        "Default: `chunk`; `truncate` for FLUX, whose encoders have no windows.",
    )
    num_images: int = Field(1, ge=1, le=8, description="Number of images; image i is made with `seed` + i.")
    layers: OrLeftOut[int] = Field(
        None,
        ge=1,
        le=8,
        description="Number of transparent layers into which the reference is decomposed, for models such as "
        "Qwen-Image-Layered. Each layer is an image; the first is at the back. Default: the model's own.",
    )
    num_inference_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Number of denoising steps; more take longer. Default: the model's own.",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=30,
        description="How closely the image follows the prompt. 0 and 1 turn it off; for FLUX every value acts, "
        "and for Z-Image every one above 0. Default: the model's own.",
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=0,
        le=30,
        description="Classifier-free guidance for guidance-distilled models; above 1 it uses "
        "`negative_prompt` and takes twice as long. 1 turns it off; less is refused. "
        "Default: the model's own.",
    )
    guidance_rescale: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How far guidance is rescaled, to avoid overexposed images (arXiv 2305.08891). Default: "
        "the model's own.",
    )
    guidance: OrLeftOut[Guidance] = Field(
        None,
        description="Another kind of guidance than plain classifier-free guidance, with `guidance_scale` "
        "as its weight (`true_cfg_scale` for FLUX). `/v1/models/{id}` lists the kinds that a "
        "model supports. Default: plain.",
    )
    dynamic_thresholding: OrLeftOut[DynamicThresholding] = Field(
        None,
        description="Dynamic thresholding for models that work on pixels, such as DeepFloyd IF, against "
        "colors that guidance drives out of range. Default: the checkpoint's own.",
    )
    clip_skip: int | None = Field(
        None,
        ge=1,
        le=8,
        description="Number of final CLIP layers that are skipped when the prompt is encoded: 1 less than the "
        "`Clip skip` of AUTOMATIC1111's web UI. Default: none is skipped.",
    )
    max_sequence_length: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Number of tokens that the T5 encoder or the language model reads of a prompt, the end token "
        "of T5 included. The rest of a longer prompt is not read, which `long_prompt` can refuse. At most what "
        "`/v1/models` says of the model. Default: the model's own.",
    )
    original_size: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="SDXL micro-conditioning: the width and height in pixels that the image should seem "
        "to have had before it was scaled; small values make it look blurred. Default: the "
        "size of the output.",
    )
    crops_coords_top_left: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="SDXL micro-conditioning: x and y in pixels of the corner from which the image should "
        "look cropped. Default: (0, 0), not cropped.",
    )
    target_size: tuple[Coordinate, Coordinate] | None = Field(
        None,
        description="SDXL micro-conditioning: the width and height in pixels for which the image should "
        "be composed. Default: the size of the output.",
    )
    seed: Seed | None = Field(
        None,
        description="Seed of the first image. The image is reproducible bit for bit, unless `batchable` or the "
        "operator lets calls be joined. Default, and for -1: a random seed, which the answer states.",
    )
    batchable: bool | None = Field(
        None,
        description="Whether the denoiser's calls for this job may be joined with those of other jobs, which is "
        "faster under load, and may change values of the image by one level of 255, or a few in half precision. "
        "`false`: the image is the same, bit for bit, whatever else runs. Default: `true` without a seed; with "
        "one as the operator has set (`DARKROOM_WORKER_SEEDS`), `false` unless that was changed.",
    )
    scheduler: str | None = Field(
        None, description="Name from `/v1/schedulers`; it must be of the model's kind. Default: the model's own."
    )
    speed: Speed = Field(
        "exact",
        description="`exact` computes every step; `fast` predicts some from the ones before, which changes the "
        "image.",
    )
    loras: tuple[Lora, ...] = Field((), max_length=8, description="LoRAs to apply together.")
    ip_adapters: tuple[IpAdapter, ...] = Field(
        (), max_length=4, description="IP-Adapters to apply together: reference images beside the prompt."
    )
    vae: OrLeftOut[str] = Field(
        None,
        description="Id from `/v1/vaes` of the VAE that decodes latents to images and encodes input "
        "images. Default: the model's own.",
    )
    textual_inversions: tuple[TextualInversion, ...] = Field(
        (),
        max_length=MAX_INVERSIONS,
        description="Textual inversions whose trigger words appear in the prompts. With `prompt_syntax` `a1111` "
        "listing them is optional: an id or a trigger word in a prompt is enough.",
    )
    refiner: OrLeftOut[Refiner] = Field(
        None,
        description="A model that runs the last steps, such as SDXL's refiner; adapters act only before "
        "it. Default: none.",
    )
    cascade: OrLeftOut[Cascade] = Field(
        None,
        description="A second stage that makes images four times as wide and high, such as DeepFloyd "
        "IF's stage II, in the same job and from the same encoding of the prompt. Default: "
        "none.",
    )
    hires: OrLeftOut[Hires] = Field(
        None,
        description="A second pass in the same job: the images are enlarged and denoised again, with the "
        "same prompts and adapters. Default: none.",
    )
    check_step: OrLeftOut[StepCheck] = Field(
        None, description="Repeat one step, from kept latents, instead of making images. Default: none."
    )
    output_format: OutputFormat = Field("png", description="File format of the images.")
    output_quality: int = Field(
        DEFAULT_OUTPUT_QUALITY,
        ge=1,
        le=100,
        description="Quality of the files, for `jpeg` and `webp` only; more is better and larger.",
    )
    previews: int = Field(
        0, ge=0, le=10, description="Maximum number of previews of each image in the job's event stream."
    )
    keep_latents: LeftOutIfFalse = Field(
        False,
        description="Keep the latents after each step as long as the images, for `GET /v1/jobs/{id}/latents` and "
        "`darkroom verify --latents`. Each step of an image of 1024 × 1024 takes 128 KiB for Stable Diffusion and "
        "512 KiB for FLUX.1 in half precision. Width × height × images × steps may be up to 2^27.",
    )


class ControlImage(StrictModel):
    """The control image of a task that may have one."""

    control_image: OrLeftOut[ControlRef] = None


class OptionalImages(StrictModel):
    """The image and mask of a task that may have either. None: not given, or not used by family and mode."""

    image: ImageRef | None = None
    strength: Strength | None = None
    mask_image: MaskRef | None = None
    mask_blur: MaskBlur | None = None
    padding_mask_crop: MaskCrop | None = None
    fit: OrLeftOut[FitField] = None
