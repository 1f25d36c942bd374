"""The parameters of a job: its request with defaults filled in, images stored and a seed drawn.

They travel through the queue and are part of the receipt. They hold ids, JSON and storage keys only.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from contracts.catalogue.families import Mode, Task
from contracts.prompts.syntax import Chunks, joined
from contracts.prompts.tokens import max_windows, plain_chunks
from contracts.requests.fields import (
    PROMPT_FIELDS,
    Control,
    ControlImage,
    ImageFields,
    IpAdapter,
    Lora,
    OptionalImages,
    TextualInversion,
)
from contracts.requests.images.fit import Area, Fit, Size
from contracts.requests.strict_model import StrictModel


def _is_none(value: object) -> bool:
    return value is None


#: Fields that another release has added are ignored.
_STORED = ConfigDict(extra="ignore")


class ControlParameters(Control):
    """A ControlNet of a job; `image` is a storage key, or null for a ControlNet of kind `inpaint`.

    With a preprocessor, `image` is what it made, and `preprocess_options` are all of its options.
    """

    model_config = _STORED

    source: str | None = Field(
        None,
        description="Storage key of the image that the preprocessor made the control image from.",
        exclude_if=_is_none,
    )


class ReferenceParameters(StrictModel):
    """A reference image of a job."""

    model_config = _STORED

    image: str = Field(description="Storage key of the image.")
    width: int = Field(description="Width in pixels at which the model reads it.")
    height: int = Field(description="Height in pixels at which the model reads it.")
    scaled_by_pipeline: bool = Field(
        False,
        description="Whether the pipeline itself brings it to this size; else it is given at it.",
        exclude_if=lambda scaled: not scaled,
    )


class InputUse(StrictModel):
    """An input image as it came, and what was done to it. What is absent did not have to be done."""

    model_config = _STORED

    field: str = Field(
        description="Its path in the request: `image`, `mask_image`, `control_image`, `controls.0.image`, "
        "`references.0`."
    )
    width: int = Field(description="Width in pixels, upright, as received.")
    height: int = Field(description="Height in pixels, upright, as received.")
    fit: Fit | None = Field(
        None, description="How it was brought to the output's size, or to `read_size`.", exclude_if=_is_none
    )
    read_size: Size | None = Field(
        None,
        description="Width and height in pixels at which the model reads it; absent: the output's.",
        exclude_if=_is_none,
    )
    crop: tuple[float, float, float, float] | None = Field(
        None,
        description="Left, upper, right and lower edge of the part that is used, in its own pixels.",
        exclude_if=_is_none,
    )
    area: Area | None = Field(
        None,
        description="What that part covers of that size: left, upper, right, lower, in pixels; the rest "
        "continues the edges.",
        exclude_if=_is_none,
    )
    color_profile: str | None = Field(
        None, description="What was done about its color profile.", exclude_if=_is_none
    )
    mask_source: str | None = Field(
        None, description="What was read as the mask, where that is not the brightness.", exclude_if=_is_none
    )


class IpAdapterParameters(IpAdapter):
    """An IP-Adapter of a job; `images` and `mask` are storage keys."""

    model_config = _STORED

    key: str | None = Field(
        None,
        description="Storage key of an uploaded file; absent for an IP-Adapter of the catalogue.",
        exclude_if=_is_none,
    )
    sha256: str | None = Field(
        None,
        description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again.",
        exclude_if=_is_none,
    )
    values: int | None = Field(
        None,
        description="Numbers that one image of an uploaded one takes on the device.",
        exclude_if=_is_none,
    )
    image_encoder: str | None = Field(
        None,
        description="Name of the operator's image encoder that an uploaded one is used with.",
        exclude_if=_is_none,
    )


class LoraParameters(Lora):
    """A LoRA of a job."""

    model_config = _STORED

    key: str | None = Field(None, description="Storage key of an uploaded file; null for a LoRA of the catalogue.")
    sha256: str | None = Field(
        None,
        description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again; null "
        "for a LoRA of the catalogue.",
    )
    values: int | None = Field(
        None, description="Number of values in the uploaded file; null for a LoRA of the catalogue."
    )


class TextualInversionParameters(TextualInversion):
    """A textual inversion of a job."""

    model_config = _STORED

    words: tuple[str, ...] = Field(description="Words in the prompts that stand for it.")
    key: str | None = Field(None, description="Storage key of an uploaded file; null for one of the catalogue.")
    sha256: str | None = Field(
        None,
        description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again; null "
        "for one of the catalogue.",
    )
    vectors: int | None = Field(
        None, description="Tokens that its word takes; null where the file had yet to be downloaded."
    )


class JobParameters(ImageFields, OptionalImages, ControlImage):
    """Everything that shapes the images of a job. Null: family or mode does not use the field."""

    model_config = _STORED

    task: Task = Field(description="Task of the request.")
    mode: Mode = Field(
        description="Pipeline that the job runs on: its task, or for ControlNet and edits also whether it has an "
        "image or a mask."
    )
    model: str = Field(description="Id of the model.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    num_inference_steps: int = Field(description="Number of denoising steps.")
    seed: int = Field(description="Seed of the first image; image i uses `seed` + i.")
    batchable: bool | None = Field(
        None,
        description="Whether calls of the denoiser may be joined with those of other jobs; null: a seed was "
        "named, and the worker's settings say what that means.",
    )
    scheduler: str = Field(description="Name of the scheduler.")
    loras: tuple[LoraParameters, ...] = Field((), description="The LoRAs to apply.")
    controls: tuple[ControlParameters, ...] = Field((), description="The ControlNets to apply.")
    references: tuple[ReferenceParameters, ...] = Field(
        (), description="The reference images.", exclude_if=lambda references: not references
    )
    ip_adapters: tuple[IpAdapterParameters, ...] = Field(
        (), description="The IP-Adapters to apply.", exclude_if=lambda adapters: not adapters
    )
    textual_inversions: tuple[TextualInversionParameters, ...] = Field(
        (), description="The textual inversions in the prompts.", exclude_if=lambda inversions: not inversions
    )
    input_images: tuple[InputUse, ...] = Field(
        (), description="What was done to each input image.", exclude_if=lambda uses: not uses
    )
    prompt_chunks: dict[str, Chunks] = Field(
        default_factory=dict,
        exclude_if=lambda chunks: not chunks,
        description="Prompt field -> what the encoders read where `prompt_syntax` gives it a meaning: for each "
        "part between BREAKs, its texts with their weights.",
    )

    def chunks_of(self, field: str) -> Chunks | None:
        """What the encoders read of one prompt, in weighted spans; None for a prompt that the job lacks."""
        text = getattr(self, field)
        return None if text is None else self.prompt_chunks.get(field, plain_chunks(text))

    def text_of(self, field: str) -> str | None:
        """What the encoders read of one prompt, without weights."""
        chunks = self.chunks_of(field)
        return None if chunks is None else joined(chunks)

    @property
    def max_windows(self) -> int:
        """An upper bound of the windows of CLIP that the longest of the prompts takes; 1 unless it is chunked."""
        if self.long_prompt != "chunk":
            return 1
        every = [self.chunks_of(field) or () for field in PROMPT_FIELDS]
        return max(max_windows([len(joined((chunk,)).encode()) for chunk in chunks]) for chunks in every)

    @property
    def max_result_bytes(self) -> int:
        """The most bytes that the job's image files take: three for each pixel, and some for metadata."""
        return self.pixels * 3 + self.num_images * 2**16

    def for_log(self) -> dict[str, str | int]:
        """What a line of the log says of the job: no prompt, and nothing else that is a client's private text."""
        return {
            "model": self.model,
            "task": self.task.value,
            "width": self.width,
            "height": self.height,
            "images": self.num_images,
            "steps": self.num_inference_steps,
        }

    @property
    def stages(self) -> tuple[JobParameters, ...]:
        """The parameters of each of its stages, every one with a model of its own: the job's, and its refiner's.

        Adapters and `clip_skip` act in the first stage only.
        """
        if self.refiner is None:
            return (self,)
        refined = {
            "model": self.refiner.model,
            "mode": Mode.INPAINT if self.mode is Mode.INPAINT else Mode.IMG2IMG,
            "num_inference_steps": self.refiner.steps or self.num_inference_steps,
            "clip_skip": None,
            "guidance": None,
            "loras": (),
            "ip_adapters": (),
            "textual_inversions": (),
        }
        return self, self.model_copy(update=refined)

    @property
    def total_steps(self) -> int:
        """Denoising steps of all stages, from pure noise to the image."""
        if self.refiner is None:
            return self.num_inference_steps
        switch_at, later = self.refiner.switch_at, self.stages[-1].num_inference_steps
        return round(self.num_inference_steps * switch_at + later * (1 - switch_at))

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.width * self.height * self.num_images

    @property
    def reference_pixels(self) -> int:
        """Pixels of all reference images; they are the same for each image."""
        return sum(reference.width * reference.height for reference in self.references)

    @property
    def seeds(self) -> list[int]:
        """Seed of each image."""
        return [self.seed + index for index in range(self.num_images)]

    @property
    def needs(self) -> list[str]:
        """What a worker must have prepared: its models' ids, `controlnet:ID` for each ControlNet, `ip_adapter:ID`
        for each IP-Adapter, and `lora:ID` and `textual_inversion:ID` for each of these of the catalogue.

        Uploaded files come from the storage, like input images.
        """
        controlnets = (f"controlnet:{control.controlnet}" for control in self.controls)
        loras = (f"lora:{lora.name}" for lora in self.loras if lora.key is None)
        ip_adapters = (f"ip_adapter:{adapter.name}" for adapter in self.ip_adapters if adapter.key is None)
        inversions = (f"textual_inversion:{one.name}" for one in self.textual_inversions if one.key is None)
        models = (stage.model for stage in self.stages)
        return list(dict.fromkeys((*models, *controlnets, *loras, *ip_adapters, *inversions)))

    @property
    def inputs(self) -> list[str]:
        """Storage keys of the images and uploaded adapters that the job reads, without repetition."""
        controls = (key for control in self.controls for key in (control.image, control.source))
        images = (self.image, self.mask_image, self.control_image, *controls)
        references = (reference.image for reference in self.references)
        image_prompts = (key for adapter in self.ip_adapters for key in (*adapter.images, adapter.mask))
        uploads = (file.key for files in (self.loras, self.textual_inversions, self.ip_adapters) for file in files)
        keys = (*images, *references, *image_prompts, *uploads)
        return list(dict.fromkeys(key for key in keys if key is not None))
