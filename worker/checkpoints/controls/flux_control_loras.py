"""Makes a FLUX.1 Control transformer of a usual one, by the Control LoRA that a model's row names.

diffusers' converter of Black Forest Labs' files (`_convert_bfl_flux_control_lora_to_diffusers`, 0.42) also swaps
the two halves of `final_layer.adaLN_modulation.1.lora_A`, whose rows are ranks and not outputs, so that `norm_out`
gets a wrong difference; `test_diffusers_still_swaps_ranks_of_the_last_norm` fails when that changes. Here only
outputs are swapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contracts.errors import AdapterRefused, CatalogueError
from contracts.weights.adapters.lora_settings import ScaleSettings, read_settings
from contracts.weights.controls.flux_control_lora_files import LayerChange, read_control_lora
from contracts.weights.denoiser_files import CONTROL_INPUT
from contracts.weights.formats.safetensors import read_header
from worker.checkpoints.controls.control_loras import whole_weight


def merge_control_lora(transformer: Any, file: Path, scale: float) -> None:
    """Merge a Control LoRA into a `FluxTransformer2DModel` in host memory.

    A layer's weight is W + scale · up · down, added in float32 and rounded once; its bias likewise. Norms are
    replaced.

    Args:
        scale: weight of all but the norms.

    Raises:
        CatalogueError: the file does not fit, or holds values that are no numbers.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
    found = read_control_lora(file, shapes)
    if found is None:
        raise CatalogueError(f"{file.name} cannot be compared with the model")
    with safe_open(file, framework="pt") as stored:
        settings = _settings(file)
        for change in found.changes:
            _merge(transformer.get_submodule(change.layer), change, _Values(stored, file), scale, settings)
        for tensor, name in found.norms.items():
            own = transformer.get_parameter(tensor)
            own.data = _Values(stored, file).read(name).to(own.dtype)
    # As the configuration of a Control checkpoint says it.
    inputs = shapes[f"{CONTROL_INPUT}.weight"][1]
    transformer.register_to_config(in_channels=2 * inputs, out_channels=transformer.out_channels)


class _Values:
    """The tensors of the open file, in float32."""

    def __init__(self, stored: Any, file: Path) -> None:
        self._stored, self._file = stored, file

    def read(self, name: str) -> torch.Tensor:
        """One of them; raises CatalogueError where it contains NaN or infinite values."""
        tensor: torch.Tensor = self._stored.get_tensor(name).float()
        if not torch.isfinite(tensor).all():
            raise CatalogueError(f"{self._file.name}: {name} contains NaN or infinite values")
        return tensor


def _settings(file: Path) -> ScaleSettings:
    try:
        return read_settings(read_header(file).metadata).get("transformer", ScaleSettings())
    except AdapterRefused as error:
        raise CatalogueError(f"{file.name}: {error}") from None


def _merge(layer: Any, change: LayerChange, values: _Values, scale: float, settings: ScaleSettings) -> None:
    up, down = (values.read(name) for name in (change.up, change.down))
    alpha = None if change.alpha is None else float(values.read(change.alpha))
    scale *= settings.scale_of(change.layer, len(down), alpha)
    weight = whole_weight(f"{change.layer}.weight", layer.weight, "a Control LoRA").float()
    if down.shape[1] > weight.shape[1]:
        weight = torch.nn.functional.pad(weight, (0, down.shape[1] - weight.shape[1]))
        layer.in_features = down.shape[1]
    added = torch.cat([up[begin:end] for begin, end in change.rows]) @ down
    layer.weight = torch.nn.Parameter((weight + added * scale).to(layer.weight.dtype), requires_grad=False)
    if change.bias is not None:
        bias = torch.cat([values.read(change.bias)[begin:end] for begin, end in change.rows])
        layer.bias.data = (layer.bias.data.float() + bias * scale).to(layer.bias.dtype)
