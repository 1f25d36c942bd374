"""Device memory of a training in addition to its model: trained values, their optimizer, and the needs of a step.

An estimate, on the safe side. Knows no layers: the width of a denoiser's layers is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.byte_sizes import gib
from contracts.memory.plan import Placement, Plan
from contracts.memory.sizes.component import Role
from contracts.requests.training.parameters import TrainingParameters
from contracts.requests.training.settings import OptimizerName

#: Bytes of each value that is trained: weight, gradient, two averages of AdamW, all in float32; or the averages in
#: 8 bits, with a scale for 256 of them.
_VALUE_BYTES: Mapping[OptimizerName, float] = {"adamw": 16, "adamw8bit": 10.1}
#: A LoRA has `2 * rank / width` values for each value of the layers that it changes. Widths are 320 to 3072; the
#: values of a denoiser are mostly in its wider layers.
_ASSUMED_WIDTH = 640
#: Values of a ControlNet for each of its denoiser's. A UNet's encoder: 0.42 in Stable Diffusion 1, 0.49 in SDXL.
#: Blocks of a transformer: 0.52 in SD3 Medium, 0.56 in SD3.5 Medium, 0.25 in FLUX.1, 0.09 in Qwen-Image.
_CONTROLNET_SHARES: Mapping[str, float] = {
    "sd15": 0.55, "sdxl": 0.55, "sd3": 0.6, "flux": 0.3, "qwen-image": 0.1,
}  # fmt: skip
#: Of one vector of a textual inversion, for both encoders of SDXL.
_VECTOR_VALUES = 2048
#: What the gradients of one caption need, in bytes of the text encoders' weights: an eighth of them in activations
#: (measured for CLIP-L; in half precision a quarter), and weights in float16 once more in bfloat16.
_TEXT_ACTIVATIONS = 1.25
#: What a step needs, in activations of an image: recomputed for one block at a time, with their gradients.
_BACKWARD = 3.0
#: The same beside it for a ControlNet, whose blocks are recomputed one at a time as well.
_CONTROLNET_BACKWARD = 1.5


def missing_role(plan: Plan, training: TrainingParameters) -> Role | None:
    """The first role that each step needs and whose weights are not all on the device; None: there is none."""
    roles = {Role.DENOISER}
    if training.settings.encodes_each_step:
        roles.add(Role.TEXT_ENCODER)
    if training.settings.train_text_encoder:
        roles.add(Role.T5)  # which reads the captions in each step as well
    parts = (part for part in plan.components if part.role in roles)
    there = (Placement.DEVICE, Placement.SKIPPED)  # a T5 that is left out is read by nobody
    return next((part.role for part in parts if part.placement not in there), None)


def state_bytes(plan: Plan, training: TrainingParameters, value_bytes: int, family: str) -> int:
    """What is trained, its gradients and its optimizer.

    Args:
        family: of the model.
    """
    if training.settings.kind == "textual_inversion":
        return (training.settings.vectors or 1) * _VECTOR_VALUES * 16  # too few for 8 bits
    roles = {Role.DENOISER, Role.TEXT_ENCODER} if training.settings.train_text_encoder else {Role.DENOISER}
    values = sum(part.bytes for part in plan.components if part.role in roles) // value_bytes
    is_controlnet = training.settings.kind == "controlnet"
    share = _CONTROLNET_SHARES[family] if is_controlnet else min(1.0, 2 * training.settings.rank / _ASSUMED_WIDTH)
    return int(values * share * _VALUE_BYTES[training.settings.optimizer])


def activation_bytes(plan: Plan, training: TrainingParameters) -> int:
    """What a step takes beyond the activations of one image, which the plan has."""
    backward = _BACKWARD + (_CONTROLNET_BACKWARD if training.settings.kind == "controlnet" else 0)
    is_text = training.settings.train_text_encoder
    text = sum(part.bytes for part in plan.components if is_text and part.role is Role.TEXT_ENCODER)
    image = plan.activation_bytes * (backward * training.settings.batch_size - 1)
    return int(image + _TEXT_ACTIVATIONS * text)


def refusal(plan: Plan, training: TrainingParameters, value_bytes: int, family: str) -> str | None:
    """Why a worker with this plan for one image cannot train; None: it can. Arguments as of `state_bytes`."""
    missing = missing_role(plan, training)
    state = state_bytes(plan, training, value_bytes, family)
    needed = plan.peak_bytes + state + activation_bytes(plan, training)
    if missing is None and not plan.fp8 and needed <= plan.budget_bytes:
        return None
    where = "" if missing is None else f", and the {missing.value.replace('_', ' ')} does not fit as a whole"
    return f"needs {gib(needed)} of {gib(plan.budget_bytes)}{where}"
