"""The parameters of a training job, as they travel through the queue. Ids, JSON and storage keys only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from contracts.catalogue.families import Mode, Task
from contracts.left_out_fields import OrLeftOut
from contracts.requests.entry_parameters import ControlParameters, LoraParameters, TextualInversionParameters
from contracts.requests.fields import DEFAULT_OUTPUT_QUALITY, OutputFormat
from contracts.requests.parameters import JobParameters
from contracts.requests.strict_model import StrictModel
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.settings import EIGHT_BIT, TrainingSettings

#: Seeds of class images follow the training's own, and those of samples are its own.
_CLASS_SEEDS = 1

#: What a training registers, as an image job names it.
TrainedParameters = LoraParameters | TextualInversionParameters | ControlParameters

#: Fields that another release has added are ignored.
_STORED = ConfigDict(extra="ignore")


class TrainingImage(StrictModel):
    """One image to learn from."""

    model_config = _STORED

    image: str = Field(description="Storage key of the image.")
    conditioning_image: OrLeftOut[str] = Field(
        None, description="Storage key of its control image; absent without one."
    )
    caption: str = Field(description="Caption of the image.")

    @property
    def keys(self) -> tuple[str, ...]:
        """Storage keys of the image and of its control image."""
        return (self.image,) if self.conditioning_image is None else (self.image, self.conditioning_image)


class ResumedTraining(StrictModel):
    """The earlier training that this one continues."""

    model_config = _STORED

    id: str = Field(description="Id of its job.")
    checkpoint: str = Field(description="Storage key of its checkpoint.")
    step: int = Field(description="Steps that it had completed when that was written.")


class TrainingParameters(StrictModel):
    """Everything that shapes what is trained.

    Attributes:
        sample: how class images and samples are made, whatever their prompts.
    """

    model_config = _STORED

    task: Literal[JobTask.TRAINING] = Field(description="Task of the request.")
    model: str = Field(description="Id of the model that is trained on.")
    name: str = Field(description="Id of the result in later requests.")
    settings: TrainingSettings = Field(description="How it is trained.")
    images: tuple[TrainingImage, ...] = Field(description="The training images.")
    class_prompt: str | None = Field(
        None, description="Prompt of the subject's class; null without prior preservation."
    )
    class_images: int = Field(0, description="Number of class images that the model generates beforehand.")
    sample_prompts: tuple[str, ...] = Field((), description="Prompts of the sample images.")
    snapshot_every_steps: int = Field(description="Steps between two snapshots with samples.")
    checkpoint_every_steps: int = Field(
        description="Steps between two checkpoints: the maximum that is lost with a worker."
    )
    sample: JobParameters = Field(description="How images of the class and samples are made.")
    resumed: OrLeftOut[ResumedTraining] = Field(
        None, description="The training that this one continues; absent without one."
    )

    def caption_parameters(self, caption: str) -> JobParameters:
        """Of an image with this prompt, which encodes the caption."""
        return self.sample.model_copy(update={"prompt": caption})

    def class_parameters(self, number: int) -> JobParameters:
        """Parameters of one image of the class."""
        seed = self.settings.seed + _CLASS_SEEDS + number
        return self.sample.model_copy(update={"prompt": self.class_prompt, "seed": seed})

    def sample_parameters(self, index: int, adapter: TrainedParameters) -> JobParameters:
        """Of a sample image with what was trained; the seed is the same at each snapshot."""
        changes: dict[str, Any] = {"prompt": self.sample_prompts[index]}
        if isinstance(adapter, ControlParameters):
            image = self.images[index % len(self.images)].conditioning_image
            control = adapter.model_copy(update={"image": image})
            changes |= {
                "mode": Mode.CONTROLNET, "task": Task.CONTROLNET, "controls": (control,), "fit": "cover",
            }  # fmt: skip
        else:
            field = "loras" if isinstance(adapter, LoraParameters) else "textual_inversions"
            changes[field] = (adapter,)
        return self.sample.model_copy(update=changes)

    def fingerprint(self, model_sha256: str) -> str:
        """A hash that is equal only for trainings of which one's checkpoints continue the other."""
        learned = self.model_dump(mode="json", include={"settings", "class_prompt", "class_images"})
        if self.settings.schedule == "constant":  # no step depends on how many come after it
            del learned["settings"]["steps"]
        # Of each image its content, which is in its key: the same one may be stored again under another.
        learned["images"] = [(*(key.split(".")[0] for key in one.keys), one.caption) for one in self.images]
        text = json.dumps([model_sha256, learned], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def facts(self, model_sha256: str, step: int) -> dict[str, str]:
        """What the file says of its training: no caption and no prompt."""
        settings = self.settings.model_dump(mode="json", exclude={"initial_text"})
        facts = {
            "base_model": self.model,
            "base_model_sha256": model_sha256,
            "steps_done": step,
            "images": len(self.images),
            "class_images": self.class_images,
            **settings,
        }
        return {"darkroom_training": json.dumps(facts, sort_keys=True)}

    # -- as in `TaskParameters` -----------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """The training's."""
        return self.settings.seed

    @property
    def seeds(self) -> Sequence[int | None]:
        """Of the sample images: they come from what was trained as well, so no seed alone makes them again."""
        return [None] * len(self.sample_prompts)

    @property
    def num_images(self) -> int:
        """Sample images of the finished training."""
        return len(self.sample_prompts)

    @property
    def batchable(self) -> bool | None:
        """Its class images and samples are made alone, so that they are the same each time."""
        return False

    @property
    def expected_steps(self) -> int:
        """Steps of the optimizer."""
        return self.settings.steps

    @property
    def needs(self) -> list[str]:
        """The model, and an optimizer that not every worker has."""
        return [self.model, *([EIGHT_BIT] if self.settings.optimizer == "adamw8bit" else ())]

    @property
    def inputs(self) -> list[str]:
        """The images to learn from, and the checkpoint that it begins with."""
        checkpoints = [] if self.resumed is None else [self.resumed.checkpoint]
        return list(dict.fromkeys([*(key for one in self.images for key in one.keys), *checkpoints]))

    @property
    def max_result_bytes(self) -> int:
        """Class images and samples; trained files are counted when they are registered."""
        return self.sample.pixels * 3 * (self.num_images + self.class_images) + (self.num_images + 1) * 2**16

    @property
    def record_version(self) -> int:
        """Earlier releases know no trainings."""
        return 3

    @property
    def step_kind(self) -> tuple[object, ...]:
        """As in `TaskParameters`."""
        return (
            "train",
            self.model,
            self.settings.kind,
            self.settings.resolution,
            self.settings.batch_size,
            self.class_images > 0,
            self.settings.train_text_encoder,
        )

    @property
    def work(self) -> dict[str, Any]:
        """As in `TaskParameters`; under names of its own, since a step takes longer than one of images."""
        settings = self.settings
        steps = settings.steps - (0 if self.resumed is None else self.resumed.step)
        rows = settings.batch_size * (1 + (self.class_images > 0))
        text = " text" if settings.train_text_encoder else ""
        return {
            "pace": f"training {self.model} {settings.resolution} {rows}{text}",
            "model": f"training {self.model}",
            "image_steps": steps * rows,
            "megapixel_steps": steps * rows * settings.resolution**2 / 1e6,
            "images": 1,
            "joins": "",
        }

    @property
    def private_texts(self) -> list[str]:
        """Captions and prompts."""
        texts = [one.caption for one in self.images] + [self.class_prompt or "", *self.sample_prompts]
        texts.append(self.settings.initial_text or "")
        return list(dict.fromkeys(text for text in texts if text))

    @property
    def width(self) -> int:
        """Of the sample images, in pixels."""
        return self.sample.width

    @property
    def height(self) -> int:
        """Of the sample images, in pixels."""
        return self.sample.height

    @property
    def pixels(self) -> int:
        """Pixels of the sample images of the finished training."""
        return self.width * self.height * self.num_images

    @property
    def image(self) -> None:
        """Its sample images are made from no image."""
        return None

    @property
    def output_format(self) -> OutputFormat:
        """Of the sample images."""
        return "png"

    @property
    def output_quality(self) -> int:
        """Of the sample images; PNG has none."""
        return DEFAULT_OUTPUT_QUALITY

    def for_log(self) -> dict[str, str | int]:
        """As in `TaskParameters`."""
        settings = self.settings
        return {
            "model": self.model,
            "task": self.task.value,
            "images": len(self.images),
            "steps": settings.steps,
            "kind": settings.kind,
            "rank": settings.rank,
        }
