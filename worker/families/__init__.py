"""How each family speaks with diffusers: one file a family, data and small functions; none imports another.

What a family can do is `contracts/families.py`'s matter; this package says which classes and arguments do it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from PIL import Image

from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Call:
    """One pipeline call: what its jobs share, and the texts of each image.

    Attributes:
        job: parameters of the first job; all that matters here is equal in the others.
        texts: argument (`prompt`, `negative_prompt`, …) -> one text an image; absent where no job has it.
        image, mask, controls: pictures of the output's size; a control is None where the job's own image serves.
    """

    job: JobParameters
    texts: Mapping[str, list[str]]
    image: Image.Image | None = None
    mask: Image.Image | None = None
    controls: Sequence[Image.Image | None] = ()

    @property
    def size(self) -> dict[str, int]:
        """The output's size, as most pipelines take it. Without it FLUX and SD3 fall back to their own."""
        return {"width": self.job.width, "height": self.job.height}

    @property
    def start(self) -> dict[str, Any]:
        """The image to start from and how far to leave it.

        One picture for each generator: with a single one, some pipelines draw from the first generator only,
        and an image would depend on its place in the batch.
        """
        return {"image": [self.image] * len(self.texts["prompt"]), "strength": self.job.strength}

    @property
    def repaint(self) -> dict[str, Any]:
        """The mask, once for each image."""
        return {"mask_image": [self.mask] * len(self.texts["prompt"])}

    @property
    def guidance_scale(self) -> float:
        """The job's, or 1 (no guidance in any family) for a model that would ignore it."""
        return 1.0 if self.job.guidance_scale is None else self.job.guidance_scale

    def control_weights(self) -> dict[str, Any]:
        """Scales and intervals of the ControlNets."""
        controls = self.job.controls
        return {
            "controlnet_conditioning_scale": one_or_all([control.conditioning_scale for control in controls]),
            "control_guidance_start": one_or_all([control.guidance_start for control in controls]),
            "control_guidance_end": one_or_all([control.guidance_end for control in controls]),
        }


def texts_of(jobs: Sequence[JobParameters]) -> dict[str, list[str]]:
    """One text an image for each text field that the jobs have; the batch key says that they agree in which."""
    return {
        field: [getattr(job, field) for job in jobs for _ in job.seeds]
        for field in ("prompt", "prompt_2", "prompt_3", "negative_prompt")
        if getattr(jobs[0], field) is not None
    }


def one_or_all(values: Sequence[_Value]) -> _Value | list[_Value]:
    """A single ControlNet takes a value, several take a list of them."""
    return values[0] if len(values) == 1 else list(values)


def _leave_as_it_is(pipeline: Any) -> None:
    pass


#: One image's texts and options, as `encode_prompt` takes them.
Wording = dict[str, Any]


@dataclass(frozen=True)
class Encoding:
    """How a family's texts become embeddings. A negative prompt is encoded like any other text.

    Attributes:
        texts: the job's fields that are texts of `encode_prompt`; those a job leaves out are None.
        options: the job's fields that shape the embedding of a prompt.
        negative_options: those that shape the embedding of a negative prompt.
        negatives: the negative text of each image; None where the pipeline needs none. It is given the
            pipeline's own settings.
        places: where `encode_prompt`'s answer holds the sequence and the pooled embedding.
        fixed: arguments of `encode_prompt` that never change.
    """

    texts: tuple[str, ...]
    options: tuple[str, ...]
    negative_options: tuple[str, ...]
    negatives: Callable[[Call, Mapping[str, Any]], Sequence[str] | None]
    places: tuple[int, int]
    fixed: Mapping[str, Any]

    def wordings(self, call: Call) -> list[Wording]:
        """What is encoded for each image of a call."""
        options = {name: getattr(call.job, name) for name in self.options}
        texts = [call.texts.get(name, [None] * len(call.texts["prompt"])) for name in self.texts]
        return [{**dict(zip(self.texts, image, strict=True)), **options} for image in zip(*texts, strict=True)]

    def negative_wordings(self, call: Call, settings: Mapping[str, Any]) -> list[Wording] | None:
        """The same for what the images should not show; None where nothing is encoded for it."""
        negatives = self.negatives(call, settings)
        if negatives is None:
            return None
        options = {name: getattr(call.job, name) for name in self.negative_options}
        others = {name: None for name in self.texts if name != "prompt"}
        return [{"prompt": text, **others, **options} for text in negatives]


def _as_they_are(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:  # noqa: ARG001
    return latents


@dataclass(frozen=True)
class FamilyCode:
    """One family's side of diffusers.

    Attributes:
        id: its name in the catalogue.
        pipelines: pipeline class in `diffusers` for each mode.
        controlnet: class of one ControlNet.
        multi_controlnet: class that holds several.
        denoiser: name of the component that runs at every step.
        denoiser_class: its class in `diffusers`.
        repeated: classes of its blocks, of which it is a row; what is compiled.
        t5: name of the T5 encoder's component; None where there is none.
        encoding: how its texts become embeddings.
        arguments: the arguments of a pipeline call, all but the embeddings, the generators and the callback.
        adapt: repairs a freshly made pipeline where its class does not keep our promises.
        unpack: (pipeline, latents, (width, height) in pixels) -> latents as the VAE has them: n, channels, h, w.
    """

    id: str
    pipelines: Mapping[Mode, str]
    controlnet: str
    multi_controlnet: str
    denoiser: str
    denoiser_class: str
    repeated: tuple[str, ...]
    t5: str | None
    encoding: Encoding
    arguments: Callable[[Call], dict[str, Any]]
    adapt: Callable[[Any], None] = _leave_as_it_is
    unpack: Callable[[Any, Any, tuple[int, int]], Any] = _as_they_are


def load_family(name: str) -> FamilyCode:
    """The family that `worker/families/<name>.py` describes."""
    return cast("FamilyCode", importlib.import_module(f"worker.families.{name}").FAMILY)
