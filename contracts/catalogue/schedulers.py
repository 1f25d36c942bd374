"""Schedulers by public name: diffusers class, kind of model, options, and which settings of a checkpoint it lacks.

Rows are data; `worker/sampling/schedulers.py` makes the object. Options override the checkpoint's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

#: `diffusion` models predict noise or velocity along a beta schedule, `flow` models a rectified flow, `edm` models
#: the same as diffusion models along a continuous range of noise levels (https://arxiv.org/abs/2206.00364),
#: `trigflow` models the image itself along a quarter of a circle (https://arxiv.org/abs/2410.11081), and
#: `learned_variance` models the same as diffusion models, and how much noise a step puts back
#: (https://arxiv.org/abs/2102.09672).
Kind = Literal["diffusion", "flow", "edm", "trigflow", "learned_variance"]

#: Settings that tell how a checkpoint was trained, with the value that asks for nothing. Where one has another
#: value, a scheduler that lacks it would make a wrong image.
MODEL_SETTINGS: Mapping[Kind, Mapping[str, object]] = MappingProxyType(
    {
        "diffusion": {"rescale_betas_zero_snr": False, "timestep_type": "discrete", "thresholding": False},
        "flow": {
            "shift_terminal": None, "invert_sigmas": False, "stochastic_sampling": False, "scale_factors": None,
            "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
            "time_shift_type": "exponential",
        },
        "edm": {},
        "trigflow": {},
        "learned_variance": {
            "rescale_betas_zero_snr": False, "timestep_type": "discrete", "clip_sample": False,
        },
    }
)  # fmt: skip
#: Values of `prediction_type` that a scheduler may know.
PREDICTIONS = ("epsilon", "v_prediction", "sample")
#: Values of `variance_type` of a model that predicts the variance.
LEARNED_VARIANCES = ("learned", "learned_range")
#: Beginnings of the names of diffusers' schedulers for models with a beta schedule.
_BETA_SCHEDULES = (
    "DDIM", "DDPM", "DEIS", "DPMSolver", "Euler", "Heun", "IPNDM", "KDPM2", "LCM", "LMS", "PNDM", "SASolver",
    "TCD", "UniPC",
)  # fmt: skip


@dataclass(frozen=True)
class SchedulerSpec:
    """A scheduler as clients name it.

    Attributes:
        id: public name.
        class_name: class in `diffusers`, made with `from_config` of the checkpoint's scheduler.
        kind: kind of checkpoint that it works with.
        options: configuration entries that it overrides.
        max_steps: maximum number of steps; None without a limit of its own.
        lacks: those of `MODEL_SETTINGS` that it does not follow.
        predictions: what the model may predict.
        steps_before: steps that must be computed before another one, for that to be made again from latents that
            were kept: those whose predictions it uses. None: all of them.
        scales_noise: whether it starts from noise of another deviation than 1 (`init_noise_sigma` of its class).
    """

    id: str
    class_name: str
    kind: Kind
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    max_steps: int | None = None
    lacks: tuple[str, ...] = ()
    predictions: tuple[str, ...] = PREDICTIONS
    steps_before: int | None = 0
    scales_noise: bool = False


_NOISE_OR_VELOCITY = ("epsilon", "v_prediction")
_DISCRETE = ("timestep_type", "thresholding")
_FLOW_SOLVER: Mapping[str, object] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
#: The solvers know the other ways to spread sigmas too, but only for a beta schedule.
_FLOW_SPREAD = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_FLOW_ONLY = ("invert_sigmas", "stochastic_sampling", "scale_factors", "time_shift_type")

#: Predictions of earlier steps that a DPM solver uses: of order 3 at most, as a checkpoint may set it.
_SOLVER_STEPS = 2
_ROWS = (
    SchedulerSpec("euler", "EulerDiscreteScheduler", "diffusion", lacks=("thresholding",), scales_noise=True),
    SchedulerSpec(
        "euler_karras",
        "EulerDiscreteScheduler",
        "diffusion",
        {"use_karras_sigmas": True},
        lacks=("thresholding",),
        scales_noise=True,
    ),
    SchedulerSpec(
        "euler_a",
        "EulerAncestralDiscreteScheduler",
        "diffusion",
        lacks=_DISCRETE,
        predictions=_NOISE_OR_VELOCITY,
        scales_noise=True,
    ),
    SchedulerSpec(
        "heun",
        "HeunDiscreteScheduler",
        "diffusion",
        lacks=("rescale_betas_zero_snr", *_DISCRETE),
        predictions=_NOISE_OR_VELOCITY,
        steps_before=1,
        scales_noise=True,
    ),
    SchedulerSpec("ddim", "DDIMScheduler", "diffusion", lacks=("timestep_type",)),
    SchedulerSpec(
        "pndm",
        "PNDMScheduler",
        "diffusion",
        {"skip_prk_steps": True},
        lacks=("rescale_betas_zero_snr", *_DISCRETE),
        predictions=_NOISE_OR_VELOCITY,
        steps_before=None,
    ),
    # Turbo, Lightning and Hyper models, and their LoRAs, begin at the very last timestep.
    SchedulerSpec(
        "euler_trailing",
        "EulerDiscreteScheduler",
        "diffusion",
        {"timestep_spacing": "trailing"},
        lacks=("thresholding",),
        scales_noise=True,
    ),
    # Their steps are chosen from the 50 that LCM and TCD models are distilled on.
    SchedulerSpec("lcm", "LCMScheduler", "diffusion", max_steps=50, lacks=("timestep_type",)),
    SchedulerSpec("tcd", "TCDScheduler", "diffusion", max_steps=50, lacks=("timestep_type",)),
    SchedulerSpec("unipc", "UniPCMultistepScheduler", "diffusion", lacks=("timestep_type",), steps_before=None),
    SchedulerSpec(
        "dpmpp_2m",
        "DPMSolverMultistepScheduler",
        "diffusion",
        lacks=("timestep_type",),
        steps_before=_SOLVER_STEPS,
    ),
    SchedulerSpec(
        "dpmpp_2m_karras",
        "DPMSolverMultistepScheduler",
        "diffusion",
        {"use_karras_sigmas": True},
        lacks=("timestep_type",),
        steps_before=_SOLVER_STEPS,
    ),
    SchedulerSpec(
        "dpmpp_2m_sde",
        "DPMSolverMultistepScheduler",
        "diffusion",
        {"algorithm_type": "sde-dpmsolver++"},
        lacks=("timestep_type",),
        steps_before=_SOLVER_STEPS,
    ),
    SchedulerSpec("flow_euler", "FlowMatchEulerDiscreteScheduler", "flow", lacks=("scale_factors",)),
    SchedulerSpec(
        "flow_dpmpp_2m",
        "DPMSolverMultistepScheduler",
        "flow",
        _FLOW_SOLVER,
        lacks=("shift_terminal", *_FLOW_ONLY, *_FLOW_SPREAD),
        steps_before=_SOLVER_STEPS,
    ),
    SchedulerSpec(
        "flow_unipc",
        "UniPCMultistepScheduler",
        "flow",
        _FLOW_SOLVER,
        lacks=(*_FLOW_ONLY, *_FLOW_SPREAD),
        steps_before=None,
    ),
    SchedulerSpec("edm_euler", "EDMEulerScheduler", "edm", predictions=_NOISE_OR_VELOCITY, scales_noise=True),
    SchedulerSpec(
        "edm_dpmpp_2m",
        "EDMDPMSolverMultistepScheduler",
        "edm",
        predictions=_NOISE_OR_VELOCITY,
        steps_before=_SOLVER_STEPS,
        scales_noise=True,
    ),
    SchedulerSpec("scm", "SCMScheduler", "trigflow", predictions=("trigflow",), steps_before=None),
    SchedulerSpec("ddpm", "DDPMScheduler", "learned_variance", lacks=("timestep_type",)),
    # It draws no noise, so that the variance is left aside; it thresholds, but does not clip.
    SchedulerSpec(
        "ddpm_dpmpp_2m",
        "DPMSolverMultistepScheduler",
        "learned_variance",
        lacks=("timestep_type", "clip_sample"),
        steps_before=_SOLVER_STEPS,
    ),
)

#: Scheduler's class of a checkpoint that is distilled for few steps -> what its family's defaults are replaced by.
FEW_STEPS: Mapping[str, Mapping[str, int | float | str]] = MappingProxyType(
    {
        "LCMScheduler": {"scheduler": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0},
        "TCDScheduler": {"scheduler": "tcd", "num_inference_steps": 4, "guidance_scale": 1.0},
    }
)
#: Guidance of the published models whose UNet is given it as an input (arXiv 2310.04378).
LCM_GUIDANCE = 8.5

SCHEDULERS: Mapping[str, SchedulerSpec] = MappingProxyType({row.id: row for row in _ROWS})


def names_for(kind: Kind) -> list[str]:
    """Return the public names of the schedulers that work with this kind of model, in the order of the table."""
    return [row.id for row in _ROWS if row.kind == kind]


def kind_of(settings: Mapping[str, object]) -> Kind | None:
    """Return the kind of a checkpoint by its scheduler's class; None where no scheduler here is for it."""
    name = str(settings.get("_class_name"))
    if name.startswith("EDM"):
        return "edm"
    if name.startswith("SCM"):
        return "trigflow"
    if settings.get("variance_type") in LEARNED_VARIANCES:
        return "learned_variance"
    is_flow = settings.get("prediction_type") == "flow_prediction" or settings.get("use_flow_sigmas")
    if name.startswith("FlowMatch") or is_flow:
        return "flow"
    return "diffusion" if name.startswith(_BETA_SCHEDULES) else None


def mismatch(row: SchedulerSpec, settings: Mapping[str, object]) -> str | None:
    """Return why a scheduler would make a checkpoint's images wrong, as the end of a sentence; None: it would not.

    Args:
        settings: the configuration of the checkpoint's own scheduler; empty where it is not known.
    """
    if not settings:
        return None
    if "_class_name" in settings and (kind := kind_of(settings)) != row.kind:
        if "learned_variance" in (kind, row.kind):
            return f"does not follow the checkpoint's variance_type = {str(settings.get('variance_type'))[:80]}"
        return f"cannot follow a checkpoint that was trained for {str(settings.get('_class_name'))[:80]}"
    if settings.get("thresholding"):  # which takes the place of clipping
        settings = {**settings, "clip_sample": False}
    for name in row.lacks:
        neutral = MODEL_SETTINGS[row.kind][name]
        if (settings.get(name) or neutral) != neutral:
            return f"does not follow the checkpoint's {name} = {str(settings[name])[:80]}"
    predicted = settings.get("prediction_type")
    if row.kind != "flow" and predicted is not None and predicted not in row.predictions:
        return f"does not know the checkpoint's prediction_type = {str(predicted)[:80]}"
    return None
