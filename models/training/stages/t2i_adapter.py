"""Trains a T2I-Adapter that reads silhouettes, from the same pairs as the ControlNet."""

from pathlib import Path
from typing import Any

from diffusers import T2IAdapter
from safetensors.torch import load

from contracts.weights.controls.t2i_adapter_files import t2i_config
from models.training.lessons import NOT_A_LORA, teach
from models.training.networks.export import control_folder, write
from models.training.stages.controlnet import draw_pairs
from models.training.trainees.controls import TrainedT2IAdapter

KIND = "silhouette-t2i"
_PAIRS = 1000
_SETTINGS: dict[str, Any] = {
    **NOT_A_LORA, "steps": 400, "batch_size": 16, "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 30,
}  # fmt: skip


def train(resume: bool) -> None:
    """Trains it on the SDXL checkpoint and writes it."""
    pairs = draw_pairs("silhouette", "train/pairs/silhouette", _PAIRS)
    tensors = load(teach("sdxl", f"control-sdxl-{KIND}", _SETTINGS, pairs, resume, TrainedT2IAdapter))
    config = t2i_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    net: Any = T2IAdapter(**{name: value for name, value in config.items() if not name.startswith("_")})
    net.load_state_dict(tensors)
    write(net, folder())


def folder() -> Path:
    """Where it lies."""
    return control_folder("sdxl", KIND)
