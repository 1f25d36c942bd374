"""The parameters of a job on a diffusion model: its request with defaults filled in, images stored, a seed drawn.

They travel through the queue and are part of the receipt. They hold ids, JSON and storage keys only.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from contracts.catalogue.families import Mode, Task
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.left_out_fields import LeftOutIfEmpty, OrLeftOut
from contracts.prompts.syntax import Chunks, joined
from contracts.prompts.tokens import plain_chunks
from contracts.requests.entry_parameters import (
    CascadeParameters,
    ControlParameters,
    HiresParameters,
    IpAdapterParameters,
    LoraParameters,
    ReferenceParameters,
    StepCheckParameters,
    TextualInversionParameters,
)
from contracts.requests.fields import PROMPT_FIELDS, ControlImage, ImageFields, OptionalImages
from contracts.requests.images.input_use import InputUse
from contracts.requests.strict_model import STORED

#: Of the latents, at most: FLUX.2 has 32 channels for each 8 × 8 pixels, in up to 4 bytes; models of pixels 3.
_LATENT_BYTES_A_PIXEL, _PIXEL_BYTES = 2, 12
#: Fields that are no news to releases which read records up to version 2; those would ignore any other.
_BEFORE_VERSION_3 = frozenset({
    "batchable", "clip_skip", "controls", "crops_coords_top_left", "fit", "guidance_rescale", "guidance_scale",
    "height", "image", "input_images", "long_prompt", "loras", "mask_blur", "mask_image", "max_sequence_length",
    "mode", "model", "negative_prompt", "num_images", "num_inference_steps", "original_size", "output_format",
    "output_quality", "padding_mask_crop", "preview_vae", "previews", "prompt", "prompt_2", "prompt_3",
    "prompt_chunks", "prompt_syntax", "scheduler", "seed", "speed", "strength", "target_size", "task",
    "true_cfg_scale", "width",
})  # fmt: skip


class JobParameters(ImageFields, OptionalImages, ControlImage):
    """Everything that shapes the images of a job. Null: family or mode does not use the field."""

    model_config = STORED

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
        description="Whether calls of the denoiser may be joined with those of other jobs; null: the "
        "request has a seed, and the worker's settings decide.",
    )
    scheduler: str = Field(description="Name of the scheduler.")
    loras: tuple[LoraParameters, ...] = Field((), description="The LoRAs to apply.")
    controls: tuple[ControlParameters, ...] = Field((), description="The ControlNets to apply.")
    references: LeftOutIfEmpty[tuple[ReferenceParameters, ...]] = Field((), description="The reference images.")
    ip_adapters: LeftOutIfEmpty[tuple[IpAdapterParameters, ...]] = Field(
        (), description="The IP-Adapters to apply."
    )
    textual_inversions: LeftOutIfEmpty[tuple[TextualInversionParameters, ...]] = Field(
        (), description="The textual inversions in the prompts."
    )
    hires: OrLeftOut[HiresParameters] = Field(None, description="The second pass.")
    cascade: OrLeftOut[CascadeParameters] = Field(None, description="The second model.")
    check_step: OrLeftOut[StepCheckParameters] = Field(None, description="The step that is made again.")
    preview_vae: OrLeftOut[str] = Field(
        None, description="Id of the VAE that makes the previews; left out without one."
    )
    input_images: LeftOutIfEmpty[tuple[InputUse, ...]] = Field(
        (), description="What was done to each input image."
    )
    prompt_chunks: LeftOutIfEmpty[dict[str, Chunks]] = Field(
        default_factory=dict,
        description="Prompt field -> what the encoders read, if `prompt_syntax` is not plain: for each "
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
    def max_result_bytes(self) -> int:
        """The most bytes that the job's files take: those of each pixel, some for metadata, and kept latents."""
        return self.pixels * (4 if self.layers else 3) + len(self.seeds) * 2**16 + self.kept_latents_bytes

    @property
    def kept_latents_bytes(self) -> int:
        """The most bytes that the latents take that the job keeps; those of most models take a fraction."""
        return self.expected_steps * self.pixels * self.latent_bytes if self.keep_latents else 0

    @property
    def latent_bytes(self) -> int:
        """The most bytes that the latents of one pixel take."""
        is_of_pixels = SCHEDULERS[self.scheduler].kind == "learned_variance"
        return _PIXEL_BYTES if is_of_pixels else _LATENT_BYTES_A_PIXEL

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
        """The parameters of each of its stages: the job's, and those of its second model or of its second pass."""
        second = self.hires or self.refiner or self.cascade
        if second is None:
            return (self,)
        return self, self.model_copy(update=second.changes(self.mode, self.num_inference_steps))

    @property
    def later_stage(self) -> str:
        """What its second stage is called in plans and receipts."""
        return next((name for name in ("hires", "cascade") if getattr(self, name) is not None), "refiner")

    @property
    def larger(self) -> HiresParameters | CascadeParameters | None:
        """Its second stage, where that makes larger images."""
        return self.hires or self.cascade

    @property
    def expected_steps(self) -> int:
        """Denoising steps of all stages, from pure noise to the image; of a check of one, those that it makes."""
        if self.check_step is not None:
            before = SCHEDULERS[self.scheduler].steps_before or 0
            return min(self.num_inference_steps, before + 2)
        if self.larger is not None:
            return self.num_inference_steps + self._second_steps
        if self.refiner is None:
            return self.num_inference_steps
        switch_at, later = self.refiner.switch_at, self.stages[-1].num_inference_steps
        return round(self.num_inference_steps * switch_at + later * (1 - switch_at))

    @property
    def _second_steps(self) -> int:
        """Steps that a stage runs which makes larger images."""
        second, larger = self.stages[-1], self.larger
        return 0 if larger is None else int(second.num_inference_steps * (second.strength or 1.0))

    @property
    def _pixel_steps(self) -> int:
        """Pixels times steps, of all stages and images."""
        if self.larger is None:
            denoised = self.width * self.height * self.frames + self.reference_pixels
            return self.expected_steps * self.num_images * denoised
        return (
            self.num_inference_steps * self.width * self.height * self.num_images
            + self._second_steps * self.pixels
        )

    @property
    def pixels(self) -> int:
        """Pixels of all files that it makes."""
        made = self.larger or self
        return made.width * made.height * len(self.seeds)

    @property
    def frames(self) -> int:
        """Frames that are denoised of each image: its layers and the whole of which they are made; else itself."""
        return 1 + (self.layers or 0)

    @property
    def reference_pixels(self) -> int:
        """Pixels of all reference images; they are the same for each image."""
        return sum(reference.width * reference.height for reference in self.references)

    @property
    def private_texts(self) -> list[str]:
        """The prompts, as they were sent and as encoders read them."""
        texts = [text for name in PROMPT_FIELDS for text in (getattr(self, name), self.text_of(name))]
        return [text for text in texts if text is not None]

    @property
    def record_version(self) -> int:
        """Releases before version 2 take prompts in a syntax as plain text; those before 3 ignore newer fields,
        take a photo for the control image that a model has yet to make of it, and know no ControlNets but the
        catalogue's.
        """
        new_controls = any(control.is_made_in_job or control.key is not None for control in self.controls)
        newer = (value for name, value in self if name not in _BEFORE_VERSION_3)
        if new_controls or any(value is not False and value not in (None, ()) for value in newer):  # 0 is a class
            return 3
        return 2 if self.prompt_chunks else 1

    @property
    def step_kind(self) -> tuple[object, ...]:
        """As in `TaskParameters`."""
        guidance = None if self.guidance is None else self.guidance.kind
        kind = "step" if self.check_step is None else "checked step"  # most of its steps compute nothing
        return (kind, self.model, self.mode, self.width, self.height, self.layers, guidance)

    @property
    def work(self) -> dict[str, Any]:
        """As in `TaskParameters`. Megapixels are those of each image with its references."""
        sizes = self._sizes_of_step
        return {
            "pace": self.pace_key,
            "model": self.model,
            "image_steps": self.expected_steps * self.num_images,
            "megapixel_steps": self._pixel_steps / 1e6,
            "images": self.num_images,
            "joins": "" if self.batchable is False else f"{self.model} {sizes}",
            **({"seeded": True} if self.batchable is None else {}),
        }

    @property
    def pace_key(self) -> str:
        """The key of what is measured of jobs: equal where steps, and all else, take equally long."""
        fast = "" if self.speed == "exact" else f" {self.speed}"
        models = "+".join(dict.fromkeys(stage.model for stage in self.stages))
        size = "" if self.larger is None else f"{self.larger.width}x{self.larger.height}"
        second = f" {self.later_stage} {size} {self._second_steps}" if size else ""
        check = "" if self.check_step is None else " check"
        maps = "".join(f" map {control.preprocess}" for control in self.controls if control.is_made_in_job)
        return f"{models} {self.mode} {self._sizes_of_step}{second}{fast}{check}{maps}"

    @property
    def _sizes_of_step(self) -> str:
        """What a step is given of each image: the sizes of its frames, and those of the references."""
        sizes = [(self.width, self.height)] * self.frames
        sizes += [(reference.width, reference.height) for reference in self.references]
        return "+".join(f"{width}x{height}" for width, height in sizes)

    @property
    def seeds(self) -> list[int]:
        """Seed of each file: the layers of an image have one together."""
        return [seed for seed in self.noise_seeds for _ in range(self.layers or 1)]

    @property
    def noise_seeds(self) -> list[int]:
        """Seed of each image."""
        return [self.seed + index for index in range(self.num_images)]

    def layer_of(self, index: int) -> int | None:
        """The layer that one of its files has, counted from 0; None where images have no layers."""
        return None if self.layers is None else index % self.layers

    @property
    def vaes(self) -> list[str]:
        """VAEs of the catalogue as components: `vae:ID` for the model's own, `preview_vae:ID` for previews."""
        named = {"vae": self.vae, "preview_vae": self.preview_vae}
        return [f"{use}:{id}" for use, id in named.items() if id is not None]

    @property
    def needs(self) -> list[str]:
        """What a worker must have prepared: its models' ids, `upscaler:ID` of the second pass, `preprocessor:ID`
        for each control image that the job makes, `vae:ID`, and for each one of the catalogue `controlnet:ID`,
        `ip_adapter:ID`, `lora:ID` and `textual_inversion:ID`.

        Uploaded files come from the storage, like input images.
        """
        controlnets = (f"controlnet:{one.controlnet}" for one in self.controls if one.key is None)
        maps = (f"preprocessor:{control.preprocess}" for control in self.controls if control.is_made_in_job)
        loras = (f"lora:{lora.name}" for lora in self.loras if lora.key is None)
        ip_adapters = (f"ip_adapter:{adapter.name}" for adapter in self.ip_adapters if adapter.key is None)
        inversions = (f"textual_inversion:{one.name}" for one in self.textual_inversions if one.key is None)
        models = (stage.model for stage in self.stages)
        vaes = (name.removeprefix("preview_") for name in self.vaes)
        upscalers = () if self.hires is None or not self.hires.network else (f"upscaler:{self.hires.network}",)
        return list(
            dict.fromkeys((*models, *vaes, *upscalers, *controlnets, *maps, *loras, *ip_adapters, *inversions))
        )

    @property
    def inputs(self) -> list[str]:
        """Storage keys of the images and uploaded adapters that the job reads, without repetition."""
        controls = (key for control in self.controls for key in (control.image, control.source))
        images = (self.image, self.mask_image, self.control_image, *controls)
        references = (reference.image for reference in self.references)
        image_prompts = (key for adapter in self.ip_adapters for key in (*adapter.images, adapter.mask))
        kinds = (self.loras, self.textual_inversions, self.ip_adapters, self.controls)
        uploads = (file.key for files in kinds for file in files)
        latents = None if self.check_step is None else self.check_step.latents
        keys = (*images, *references, *image_prompts, *uploads, latents)
        return list(dict.fromkeys(key for key in keys if key is not None))
