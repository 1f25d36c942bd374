"""A job's parameters: the request with every default filled in, every picture stored, the seed drawn.

This is what crosses the queue and what the receipt repeats. It holds ids, JSON and storage keys only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.families import Mode, Task
from contracts.requests.schema import Speed

#: What may differ between two jobs of one pipeline call; all the rest is in the batch key.
PER_IMAGE_FIELDS = frozenset(
    {"prompt", "prompt_2", "prompt_3", "negative_prompt", "seed", "num_images", "batchable",
     "loras", "output_format", "output_quality", "previews"}
)  # fmt: skip


class ControlParameters(BaseModel):
    """One ControlNet of a job. `image` is a storage key; None for ControlNets of kind `inpaint`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    controlnet: str
    image: str | None
    preprocess: str | None
    conditioning_scale: float
    guidance_start: float
    guidance_end: float


class LoraParameters(BaseModel):
    """One adapter of a job.

    Attributes:
        key: storage key of one that was uploaded; None: the catalogue knows it.
        sha256: of its file then: the job keeps to it, whatever becomes of the name.
        values: that it holds, for the memory plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scale: float = 1.0
    key: str | None = None
    sha256: str | None = None
    values: int | None = None


class JobParameters(BaseModel):
    """Everything that shapes the image. None: this family or mode has no such parameter.

    Attributes:
        seed: of the first image; image i uses seed + i.
        image, mask_image: storage keys of normalised pictures.
        batchable: may share its pipeline call with other jobs of the same batch key.
        speed: `fast` predicts the denoiser's result at some steps.
        previews: how many preview events each image gets at the most; they leave no trace in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    mode: Mode
    model: str
    prompt: str
    prompt_2: str | None = None
    prompt_3: str | None = None
    negative_prompt: str | None = None
    width: int
    height: int
    num_images: int
    num_inference_steps: int
    guidance_scale: float | None
    true_cfg_scale: float | None = None
    guidance_rescale: float | None = None
    clip_skip: int | None = None
    max_sequence_length: int | None = None
    original_size: tuple[int, int] | None = None
    crops_coords_top_left: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    seed: int
    batchable: bool
    scheduler: str
    speed: Speed = "exact"
    loras: tuple[LoraParameters, ...] = ()
    image: str | None = None
    strength: float | None = None
    mask_image: str | None = None
    mask_blur: int | None = None
    padding_mask_crop: int | None = None
    controls: tuple[ControlParameters, ...] = ()
    output_format: Literal["png", "jpeg", "webp"]
    output_quality: int
    previews: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of all images of this job."""
        return self.width * self.height * self.num_images

    @property
    def seeds(self) -> list[int]:
        """One seed an image."""
        return [self.seed + index for index in range(self.num_images)]

    @property
    def adapters(self) -> list[tuple[str, float]]:
        """Content, where it is known, or name, and scale of each adapter."""
        return [(lora.sha256 or lora.name, lora.scale) for lora in self.loras]

    @property
    def needs(self) -> list[str]:
        """What a worker must have ready: the model by its id, each ControlNet as `controlnet:ID`."""
        return [self.model, *dict.fromkeys(f"controlnet:{control.controlnet}" for control in self.controls)]

    @property
    def inputs(self) -> list[str]:
        """Storage keys of all pictures and uploaded adapters that the job reads, each once."""
        pictures = (self.image, self.mask_image, *(control.image for control in self.controls))
        keys = (*pictures, *(lora.key for lora in self.loras))
        return list(dict.fromkeys(key for key in keys if key is not None))

    def with_inputs(self, names: Mapping[str, str]) -> JobParameters:
        """The same with other storage keys in the place of these."""

        def rename(key: str | None) -> str | None:
            return key if key is None else names.get(key, key)

        controls = tuple(one.model_copy(update={"image": rename(one.image)}) for one in self.controls)
        renamed = {"image": rename(self.image), "mask_image": rename(self.mask_image), "controls": controls}
        return self.model_copy(update=renamed)

    def batch_key(self) -> str:
        """Equal for jobs that one pipeline call can serve; empty for a job that must run alone."""
        if not self.batchable:
            return ""
        shared = self.model_dump(mode="json", exclude=set(PER_IMAGE_FIELDS))
        # A list of prompts has no place for "none at all", so presence must agree.
        shared["has"] = [getattr(self, field) is not None for field in ("prompt_2", "prompt_3", "negative_prompt")]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:32]


def combine(batch: Sequence[JobParameters]) -> JobParameters:
    """A batch as a memory plan sees it: what its jobs share, all images, every adapter once, in one order."""
    adapters = {(lora.name, lora.sha256 or ""): lora for job in batch for lora in job.loras}
    every = tuple(adapters[key].model_copy(update={"scale": 1.0}) for key in sorted(adapters))
    images = sum(job.num_images for job in batch)
    return batch[0].model_copy(update={"loras": every, "num_images": images})
