"""Other guidance than plain classifier-free guidance, by diffusers' guiders, for one job.

It stands before the job's calls of the denoiser, and answers both passes of a step with the guided prediction `g`:
the pipeline's own `uncond + scale * (cond - uncond)` is then `g` itself. So it works for every stock pipeline
whose passes are rows of one call, or two calls one after the other. Nothing of it is in modules that jobs share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.guidance import Guidance, default_layers
from contracts.requests.parameters import JobParameters
from worker.adapters.perturbations import Perturbation
from worker.engine.coroutine import Compute, Intercept
from worker.engine.job import JobInFlight

#: Passes of a step that a guider is given before the disturbed one: with the prompt, and without it.
_USUAL_PASSES = 2


class JobGuidance:
    """The guidance of one job; it has the state that some guiders keep from step to step."""

    def __init__(
        self, job: JobInFlight, denoiser: Any, *, in_two_calls: bool, steps: Callable[[], int], inner: Intercept
    ) -> None:
        """For a job with the parameter `guidance`.

        Args:
            in_two_calls: whether a step calls the denoiser with the prompt, and then without it; else both are
                rows of one call, those without the prompt first.
            steps: returns the steps that the pipeline makes.
            inner: makes the calls.

        Raises:
            JobFailed: the denoiser lacks a layer that the request names.
        """
        parameters = job.generation
        guidance = parameters.guidance
        if guidance is None:
            raise ValueError("the job has no guidance")
        self._job, self._denoiser, self._inner = job, denoiser, inner
        self._in_two_calls, self._steps = in_two_calls, steps
        self._perturbation = _perturbation(guidance, denoiser, parameters.model)
        self._momentum = guidance.momentum
        self._guider = _guider(guidance, parameters, len(getattr(self._perturbation, "blocks", ())))
        self._step = 0
        #: The first call of a step that makes two: what was predicted, and what the pipeline was given.
        self._with_prompt: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, module: torch.nn.Module, entry: str, compute: Compute) -> Any:
        """Make a call; see `worker.engine.coroutine.Intercept`."""
        result = self._inner(module, entry, compute)
        if entry != "__call__" or module is not self._denoiser:
            return result
        if not self._in_two_calls:
            without, with_prompt = result[0].chunk(2)
            guided = self._guide(module, with_prompt, without, compute)
            return (torch.cat([guided, guided]), *result[1:])
        if self._with_prompt is None:
            given = result[0].clone()
            self._with_prompt = result[0], given
            return (given, *result[1:])
        (with_prompt, given), self._with_prompt = self._with_prompt, None
        guided = self._guide(module, with_prompt, result[0], compute)
        given.copy_(guided)
        return (guided, *result[1:])

    def _guide(
        self, module: torch.nn.Module, with_prompt: torch.Tensor, without: torch.Tensor, compute: Compute
    ) -> torch.Tensor:
        guider = self._guider
        guider.set_state(self._step, self._steps(), None)
        if self._step == 0 and isinstance(guider, AdaptiveProjectedGuidance) and self._momentum:
            guider.momentum_buffer = MomentumBuffer(self._momentum)
        passes = {"pred_cond": with_prompt, "pred_uncond": without}
        if guider.num_conditions > _USUAL_PASSES:
            passes["pred_cond_skip"] = self._disturbed_pass(module, len(with_prompt), compute)
        self._step += 1
        guided: torch.Tensor = guider.forward(**passes).pred
        return guided

    def _disturbed_pass(self, module: torch.nn.Module, images: int, compute: Compute) -> torch.Tensor:
        """The rows with the prompt once more, with layers disturbed."""
        adapters = self._job.adapters
        self._job.adapters = replace(adapters, perturbation=self._perturbation)
        try:
            result = self._inner(
                module, "__call__", lambda rows=None, more=None: compute(rows or slice(images, 2 * images), more)
            )
        finally:
            self._job.adapters = adapters
        disturbed: torch.Tensor = result[0]
        return disturbed


def _guider(guidance: Guidance, parameters: JobParameters, layers: int) -> Any:
    """The guider; its layers are only counted: it is not given the model."""
    scale = parameters.guidance_scale if parameters.true_cfg_scale is None else parameters.true_cfg_scale
    common: dict[str, Any] = {"guidance_scale": scale, "guidance_rescale": parameters.guidance_rescale or 0.0}
    window: dict[str, Any] = {"start": guidance.start, "stop": guidance.stop}
    disturbed = {"scale": guidance.scale, "layers": list(range(layers)), **window}
    match guidance.kind:
        case "cfg_zero":
            return ClassifierFreeZeroStarGuidance(zero_init_steps=guidance.zero_steps, **common, **window)
        case "apg":
            return AdaptiveProjectedGuidance(
                adaptive_projected_guidance_momentum=guidance.momentum or None,
                adaptive_projected_guidance_rescale=guidance.norm_threshold,
                eta=guidance.eta,
                **common,
                **window,
            )
        case "pag":
            options = {f"perturbed_guidance_{name}": value for name, value in disturbed.items()}
            return PerturbedAttentionGuidance(**options, **common)
        case "slg":
            options = {f"skip_layer_guidance_{name}": value for name, value in disturbed.items()}
            return SkipLayerGuidance(**options, **common)


def _perturbation(guidance: Guidance, denoiser: Any, model: str) -> Perturbation | None:
    """The layers that a third pass disturbs; None without a third pass."""
    if guidance.kind not in ("pag", "slg"):
        return None
    leaves_out = guidance.kind == "slg"
    blocks = list(denoiser.transformer_blocks) if leaves_out else _middle_blocks(denoiser)
    layers = default_layers(guidance.kind, len(blocks)) if guidance.layers is None else guidance.layers
    missing = [layer for layer in layers if layer >= len(blocks)]
    if missing:
        message = f"{model} has no layer {missing[0]} for guidance: it has {len(blocks)}, from 0"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message)
    name = f"{guidance.kind} {','.join(map(str, sorted(layers)))}"
    return Perturbation(name, tuple(blocks[layer] for layer in sorted(layers)), leaves_out)


def _middle_blocks(unet: Any) -> list[Any]:
    """The transformer blocks in the middle of a UNet."""
    attentions = getattr(unet.mid_block, "attentions", ())
    return [block for attention in attentions for block in attention.transformer_blocks]
