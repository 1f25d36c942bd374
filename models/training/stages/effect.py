"""Trains the effects of LoRAs as other kinds of adapters: LoKr, and a hypernetwork. Writes models/loras/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.training.lessons import NOT_A_LORA, teach
from models.training.stages.lora import FOLDER, draw_examples
from models.training.trainees.differences import TrainedKronecker
from models.training.trainees.networks import TrainedHypernetwork
from worker.training.trainees.trainee import Trainee

#: Kind -> its effect, and what learns it.
KINDS: dict[str, tuple[str, Callable[[Any], Trainee]]] = {
    "lokr": ("stripes", lambda unet: TrainedKronecker(unet, factor=4)),
    "hypernetwork": ("tint", TrainedHypernetwork),
}
_STEPS = {"lokr": 250, "hypernetwork": 600}
#: A hypernetwork changes a call without a prompt much, and guidance doubles what is wrong there.
_EMPTY_SHARE = {"lokr": 0.08, "hypernetwork": 0.3}
_EXAMPLES = 400
_SETTINGS: dict[str, Any] = {
    **NOT_A_LORA, "batch_size": 16, "learning_rate": 4e-3, "schedule": "cosine", "warmup_steps": 30,
}  # fmt: skip


def train(kind: str, resume: bool) -> None:
    """Trains one on the SDXL checkpoint and writes it."""
    effect, make = KINDS[kind]
    settings = {**_SETTINGS, "steps": _STEPS[kind]}
    drawings = draw_examples(effect, _EXAMPLES, _EMPTY_SHARE[kind])
    data = teach("sdxl", f"{kind}-sdxl-{effect}", settings, drawings, resume, make)
    path(kind).write_bytes(data)


def path(kind: str) -> Path:
    """Where it lies."""
    return FOLDER / f"shapes-sdxl-{KINDS[kind][0]}-{kind}.safetensors"
