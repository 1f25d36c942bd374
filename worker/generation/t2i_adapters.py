"""T2I-Adapters of a job: their features are computed once, and added in its calls of the denoiser.

diffusers' pipelines for them (0.42) generate from noise only, and with no ControlNet. Here the usual pipelines
run, and each call of the denoiser is given the features besides, so that all modes have them. The arithmetic is
that of `StableDiffusionXLAdapterPipeline` and of `MultiAdapter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.entry_parameters import ControlParameters
from worker.engine.coroutine import Compute, Intercept, MoreArguments
from worker.engine.views import view
from worker.families.inputs import GenerationInputs
from worker.pool.model import LoadedModel

#: Modes of jobs with control images -> those that they run in where no ControlNet is left.
_WITHOUT_CONTROLNETS = {
    Mode.CONTROLNET: Mode.TXT2IMG,
    Mode.CONTROLNET_IMG2IMG: Mode.IMG2IMG,
    Mode.CONTROLNET_INPAINT: Mode.INPAINT,
}
#: A control and its image.
_Pair = tuple[ControlParameters, Image.Image | None]
#: The argument of a UNet that takes the features.
_ARGUMENT = "down_intrablock_additional_residuals"


@dataclass(frozen=True)
class AdapterFeatures:
    """Features that one T2I-Adapter computes from its control image, multiplied by its weight.

    Attributes:
        control: that named it.
        features: tensors (1, channels, height, width), from the UNet's first block on.
    """

    control: ControlParameters
    features: Sequence[torch.Tensor]

    def acts_at(self, step: int, steps: int) -> bool:
        """Whether it acts at a step, counted from 0, as diffusers decides it for ControlNets."""
        return step / steps >= self.control.guidance_start and (step + 1) / steps <= self.control.guidance_end


def take_features(model: LoadedModel, inputs: GenerationInputs) -> tuple[GenerationInputs, list[AdapterFeatures]]:
    """Compute the features of a job's T2I-Adapters, in its coroutine.

    Returns:
        The inputs of a pipeline call without them, and the features.

    Raises:
        JobFailed: an image does not have the size that one of them needs.
    """
    job = inputs.job
    adapters: list[_Pair] = []
    others: list[_Pair] = []
    for control, image in zip(job.controls, inputs.controls, strict=False):
        is_adapter = model.controlnets.is_t2i_adapter(control.component)
        (adapters if is_adapter else others).append((control, image))
    if not adapters:
        return inputs, []
    mode = job.mode if others else _WITHOUT_CONTROLNETS[job.mode]
    without = job.model_copy(update={"mode": mode, "controls": tuple(control for control, _ in others)})
    features = [_compute(model, control, image) for control, image in adapters]
    return replace(inputs, job=without, controls=[image for _, image in others]), features


def _compute(model: LoadedModel, control: ControlParameters, image: Image.Image | None) -> AdapterFeatures:
    if image is None:
        message = f"{control.name} is a T2I-Adapter, and the job has no control image for it; send it again"
        raise JobFailed(FailureCode.INPUT_INCOMPATIBLE, message)
    adapter = model.controlnets.module(control.component)
    multiple = adapter.config.downscale_factor
    if image.width % multiple or image.height % multiple:
        message = (
            f"{control.name} needs sides that are multiples of {multiple}, got {image.width} × {image.height}"
        )
        raise JobFailed(FailureCode.INPUT_INCOMPATIBLE, message)
    pixels = _pixels(image, adapter.config.in_channels).to(model.device, model.dtype)
    features = view(adapter)(pixels)
    return AdapterFeatures(control, [feature * control.conditioning_scale for feature in features])


def _pixels(image: Image.Image, channels: int) -> torch.Tensor:
    """An image as `_preprocess_adapter_image` of diffusers makes it: (1, channels, height, width), 0 to 1."""
    values = np.array(image if channels > 1 else image.convert("L")).astype(np.float32) / 255.0
    return torch.from_numpy(values.reshape(1, image.height, image.width, channels).transpose(0, 3, 1, 2))


class AdapterControl:
    """Intercept of a job's calls of the denoiser, which has features added in them."""

    def __init__(
        self, denoiser: Any, features: Sequence[AdapterFeatures], *, steps: Callable[[], int], inner: Intercept
    ) -> None:
        """For a UNet, which is called once a step.

        Args:
            steps: returns the steps that the pipeline makes.
            inner: makes the calls.
        """
        self._denoiser, self._features, self._steps, self._inner = denoiser, features, steps, inner
        self._step = 0

    def __call__(self, module: torch.nn.Module, entry: str, compute: Compute) -> Any:
        """Make a call; see `worker.engine.coroutine.Intercept`."""
        if entry != "__call__" or module is not self._denoiser:
            return self._inner(module, entry, compute)
        steps = self._steps()
        acting = [one.features for one in self._features if one.acts_at(self._step, steps)]
        self._step += 1
        if not acting:
            return self._inner(module, entry, compute)
        features = _sum(acting)

        def with_features(rows: slice | None = None, more: MoreArguments | None = None) -> Any:
            return compute(rows, more or partial(_for_rows, features))

        return self._inner(module, entry, with_features)


def _sum(acting: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """The features of several T2I-Adapters together."""
    total = list(acting[0])
    for features in acting[1:]:
        total = [own + other for own, other in zip(total, features, strict=True)]
    return total


def _for_rows(features: Sequence[torch.Tensor], rows: int) -> Mapping[str, list[torch.Tensor]]:
    """The argument of a call of so many rows: images, with and without the prompt."""
    return {_ARGUMENT: [feature.expand(rows, -1, -1, -1) for feature in features]}
