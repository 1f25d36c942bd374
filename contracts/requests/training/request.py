"""The request for a training: types, ranges and defaults. What a model allows is checked elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from contracts.requests.fields import MAX_DRAWN_SEED, Prompt
from contracts.requests.images.image_fields import SourceRef
from contracts.requests.schema import DeliveryFields, Priority
from contracts.requests.strict_model import StrictModel
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.settings import Kind, OptimizerName, Schedule, Targets

#: Families whose models can be trained on here, by what is trained. A textual inversion of FLUX.1 would reach its
#: denoiser by one pooled vector alone; diffusers has no initialization of one from Z-Image.
TRAINABLE_FAMILIES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "lora": ("sd15", "sdxl", "sd3", "flux", "qwen-image", "z-image"),
        "textual_inversion": ("sd15", "sdxl"),
        "controlnet": ("sd15", "sdxl", "sd3", "flux", "qwen-image"),
    }
)
#: Fields that mean something for one kind alone.
KIND_FIELDS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {
        "lora": frozenset(
            {"rank", "alpha", "targets", "train_text_encoder", "class_prompt", "class_images", "prior_loss_weight"}
        ),
        "textual_inversion": frozenset({"vectors", "initial_text"}),
        "controlnet": frozenset(),
    }
)
#: The most images of one training; of a ControlNet, each with its control image.
MAX_IMAGES: Mapping[Kind, int] = MappingProxyType({"lora": 200, "textual_inversion": 200, "controlnet": 1000})
MAX_VECTORS = 32
MAX_CLASS_IMAGES = 200
MAX_STEPS = 20_000
MAX_SAMPLE_PROMPTS = 4
#: Snapshots of one training: each is an adapter of the owner's.
MAX_SNAPSHOTS = 20
_NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,43}$"


class TrainingExample(StrictModel):
    """One image to learn from."""

    image: SourceRef
    conditioning_image: SourceRef | None = Field(
        None,
        description="Control image of `image`, of the same size, for `kind: controlnet`: the input for which the "
        "ControlNet should make such an image.",
    )
    caption: Prompt | None = Field(None, description="Caption: what the image shows. Default: `instance_prompt`.")


Caption = Annotated[str, Field(min_length=1, max_length=1000)]


class TrainingRequest(DeliveryFields):
    """A LoRA, a textual inversion or a ControlNet, trained on images."""

    priority: Literal[Priority.TRAINING] = Field(  # type: ignore[assignment]
        Priority.TRAINING, description="Trainings come after all images; they have no other priority."
    )

    task: Literal[JobTask.TRAINING] = Field(JobTask.TRAINING, description="Selects this kind of request.")
    kind: Kind = Field(
        "lora",
        description="What is trained: a LoRA, which changes the denoiser; a textual inversion, which is "
        "vectors that a word of the prompt stands for and changes nothing else; or a "
        "ControlNet, which makes the model follow a control image, and is trained on pairs "
        "of images.",
    )
    model: str | None = Field(
        None,
        description="Id from `/v1/models` of the model to train on. Default: the first of the list, if it is of a "
        f"family that can be trained: {', '.join(TRAINABLE_FAMILIES['lora'])}; for a textual inversion "
        f"{', '.join(TRAINABLE_FAMILIES['textual_inversion'])}; for a ControlNet "
        f"{', '.join(TRAINABLE_FAMILIES['controlnet'])}.",
    )
    resume_from: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None,
        description="Id of a training of yours that has ended in any way, to continue from its newest checkpoint "
        "with its images, captions and settings; `steps` counts from its beginning. Default: none.",
    )
    name: str = Field(
        pattern=_NAME_PATTERN,
        description="Id of the result in requests, and the word of a textual inversion in prompts; "
        "snapshots have the same name followed by `-stepN`. 1–44 of a–z, 0–9, `.`, `-` and "
        "`_`, starting with a letter or a digit.",
    )
    images: tuple[TrainingExample, ...] = Field(
        (),
        max_length=max(MAX_IMAGES.values()),
        description="Training images, with captions: up to "
        f"{MAX_IMAGES['lora']}, and of a ControlNet {MAX_IMAGES['controlnet']}, each with its control image. "
        "Leave it out if you send a zip file.",
    )
    instance_prompt: Prompt | None = Field(
        None,
        description="Caption of each image that has none of its own, such as `a photo of sks dog`: a "
        "rare word and the class of the subject.",
    )
    class_prompt: Prompt | None = Field(
        None,
        description="Prompt of the subject's class, such as `a photo of a dog`, for prior preservation: before "
        "training, the model generates `class_images` images of the class, so that it does not forget it. "
        "Default: none.",
    )
    class_images: int | None = Field(
        None,
        ge=1,
        le=MAX_CLASS_IMAGES,
        description="Number of class images. Default: 50 with `class_prompt`, else 0.",
    )
    prior_loss_weight: float = Field(1.0, gt=0, le=10, description="Weight of the class images in the loss.")
    rank: int = Field(
        16, ge=1, le=128, description="Rank of the LoRA: how much it can learn, and how large it is."
    )
    alpha: float | None = Field(
        None, gt=0, le=1024, description="The LoRA's strength is `alpha` / `rank`. Default: `rank`."
    )
    targets: Targets = Field("attention", description="Layers that the LoRA changes.")
    train_text_encoder: bool = Field(
        False,
        description="Whether the LoRA changes the attention of the CLIP text encoders too: it learns a new word "
        "better, and takes more memory and time. T5 is never trained.",
    )
    vectors: int | None = Field(
        None,
        ge=1,
        le=MAX_VECTORS,
        description="Tokens that the word of a textual inversion takes: how much it can learn. Default: 1.",
    )
    initial_text: Annotated[str, Field(max_length=100, pattern=r"\w")] | None = Field(
        None,
        description="Text whose tokens are the starting point of a textual inversion, such as `dog`, "
        "repeated or cut to `vectors`. Default: the mean of all tokens.",
    )
    steps: int = Field(500, ge=1, le=MAX_STEPS, description="Steps of the optimizer (AdamW).")
    batch_size: int = Field(
        1, ge=1, le=16, description="Images in each step; with `class_prompt`, plus as many class images."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Learning rate after the warm-up. Default: 0.0001; for a textual inversion 0.001, for a "
        "ControlNet 0.00001.",
    )
    optimizer: OptimizerName = Field(
        "adamw",
        description="Optimizer. `adamw8bit` keeps its two averages of each value in 8 bits instead of "
        "32, which takes less memory; a worker needs the package bitsandbytes for it.",
    )
    schedule: Schedule = Field("constant", description="Schedule of the learning rate after the warm-up.")
    warmup_steps: int = Field(
        0, ge=0, le=MAX_STEPS, description="Steps in which the learning rate rises from 0; less than `steps`."
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Gamma of min-SNR weighting, usually 5, for models that predict noise or velocity. "
        "Default: none.",
    )
    resolution: int | None = Field(
        None,
        ge=64,
        le=2048,
        description="Images are scaled to about the number of pixels of a square with this side, keeping "
        "their aspect ratio up to 2:1. Default: the model's own.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_DRAWN_SEED - MAX_CLASS_IMAGES,
        description="Seed of all random numbers: the same seed, images and settings give the same file "
        "on the same kind of worker. Default: a random seed, which the receipt states.",
    )
    sample_prompts: tuple[Caption, ...] = Field(
        (),
        max_length=MAX_SAMPLE_PROMPTS,
        description="Prompts of sample images, made at each snapshot and at the end, when they become the job's "
        "images; those of a ControlNet follow the control images of the first pairs. Default: none.",
    )
    snapshot_every_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description=f"Steps between two snapshots, each an adapter of its own; at most {MAX_SNAPSHOTS}. "
        "Default: none but the finished one.",
    )
    checkpoint_every_steps: int = Field(
        50,
        ge=1,
        le=MAX_STEPS,
        description="Steps between two checkpoints: the maximum that is lost if a worker dies.",
    )
