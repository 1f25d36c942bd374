"""LoHa, LoKr, full differences, OFT, IA3 and kohya's DoRA give what lycoris-lora, their trainer, gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import save_file

from worker.adapters import reader
from worker.adapters.layer_weight import Layer
from worker.adapters.row_hooks import LayerHooks, Rows

Tensors = dict[str, torch.Tensor]
Trainer = Callable[..., Any]
FAMILY: Any = SimpleNamespace(id="sdxl", denoiser="unet")
LAYERS: dict[str, Callable[[], Layer]] = {
    "linear": lambda: torch.nn.Linear(24, 32),
    "convolution": lambda: torch.nn.Conv2d(24, 32, 3, stride=2, padding=1),
    "convolution of 1 x 1": lambda: torch.nn.Conv2d(24, 32, 1, bias=False),
}
KINDS: dict[str, tuple[Trainer, dict[str, Any]]] = {
    "loha": (LohaModule, {"lora_dim": 4, "alpha": 2.0}),
    "loha with a core": (LohaModule, {"lora_dim": 4, "alpha": 2.0, "use_tucker": True}),
    "loha and dora": (LohaModule, {"lora_dim": 4, "alpha": 2.0, "weight_decompose": True}),
    "lokr": (LokrModule, {"lora_dim": 2, "alpha": 1.0, "factor": 4}),
    "lokr of whole matrices": (LokrModule, {"lora_dim": 10000, "alpha": 1.0, "factor": 4}),
    "lokr, both factored": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 4, "decompose_both": True}),
    "lokr with a core": (LokrModule, {"lora_dim": 2, "alpha": 2.0, "factor": 4, "use_tucker": True}),
    "lokr and dora": (LokrModule, {"lora_dim": 2, "alpha": 1.0, "factor": 4, "weight_decompose": True}),
    "full": (FullModule, {}),
    "oft": (DiagOFTModule, {"lora_dim": 8}),
    "oft with a constraint": (DiagOFTModule, {"lora_dim": 8, "constraint": 0.01}),
    "oft, rescaled": (DiagOFTModule, {"lora_dim": 8, "rescaled": True}),
    "ia3": (IA3Module, {}),
    "ia3 of the input": (IA3Module, {"train_on_input": True}),
    "lora with a middle": (LoConModule, {"lora_dim": 4, "alpha": 2.0, "use_tucker": True}),
    "dora of rows": (LoConModule, {"lora_dim": 4, "alpha": 2.0, "weight_decompose": True}),
    "dora of columns": (
        LoConModule,
        {"lora_dim": 4, "alpha": 2.0, "weight_decompose": True, "wd_on_out": False},
    ),
}


def _inputs(layer: Layer, rows: int = 2) -> torch.Tensor:
    shape = (rows, 24, 6, 6) if isinstance(layer, torch.nn.Conv2d) else (rows, 5, 24)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def _trained(kind: str, layer: Layer, **changes: Any) -> Any:
    trainer, options = KINDS[kind]
    torch.manual_seed(2)
    module = trainer("any", layer, **{**options, **changes}).eval()
    for name, parameter in module.named_parameters():
        if "dora" in name:
            parameter.data *= torch.linspace(0.8, 1.3, parameter.numel()).view(parameter.shape)
        else:
            torch.nn.init.normal_(parameter, std=0.4)
    return module


def _stored(module: Any) -> Tensors:
    """The module's tensors, as lycoris-lora saves them."""
    tensors = module.state_dict()
    if isinstance(module, FullModule):  # it saves what training has changed, and these are made up
        tensors = {"diff": module.weight} | ({} if module.bias is None else {"diff_b": module.bias})
    return {f"lycoris_down_blocks_0_layer.{name}": tensor.detach().clone() for name, tensor in tensors.items()}


def _model(layer: Layer) -> Any:
    blocks = torch.nn.ModuleList([torch.nn.ModuleDict({"layer": layer})])
    return SimpleNamespace(unet=torch.nn.ModuleDict({"down_blocks": blocks}), _lora_loadable_modules=["unet"])


def _read(layer: Layer, tensors: Tensors, folder: Path) -> Any:
    path = folder / "adapter.safetensors"
    save_file(tensors, path)
    return reader.read(_model(layer), FAMILY, path)["unet"][layer]


def _with(layer: Layer, change: Any, inputs: torch.Tensor, scale: float, rows: Rows | None = None) -> torch.Tensor:
    with LayerHooks().registered({layer: [(change.scaled(layer, scale), rows)]}), torch.inference_mode():
        result: torch.Tensor = layer(inputs)
    return result


@pytest.mark.parametrize("scale", [1.0, -0.6])
@pytest.mark.parametrize("shape", list(LAYERS))
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_gives_what_its_trainer_gives(kind: str, shape: str, scale: float, tmp_path: Path) -> None:
    scale = 1.0 if kind == "oft, rescaled" else scale  # lycoris-lora fails at any other
    torch.manual_seed(1)
    layer = LAYERS[shape]()
    module = _trained(kind, layer)
    change = _read(layer, _stored(module), tmp_path)
    inputs = _inputs(layer)
    with torch.inference_mode():
        bare = layer(inputs)
    ours = _with(layer, change, inputs, scale)
    module.multiplier = scale
    with torch.inference_mode():
        theirs = module(inputs)
    assert (theirs - bare).abs().max() > 0.01
    assert (ours - theirs).abs().max() < 2e-6 * theirs.abs().max()
    with torch.inference_mode():
        assert torch.equal(layer(inputs), bare)
    assert torch.equal(_with(layer, change, inputs, 0.0), bare)


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_acts_on_its_own_rows_only(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    layer = LAYERS["convolution"]()
    change, inputs = _read(layer, _stored(_trained(kind, layer)), tmp_path), _inputs(layer, rows=4)
    mixed = _with(layer, change, inputs, 1.0, Rows(1, 3, total=4))
    with torch.inference_mode():
        bare = layer(inputs)
    assert torch.equal(mixed[[0, 3]], bare[[0, 3]])
    assert torch.allclose(mixed[1:3], _with(layer, change, inputs[1:3], 1.0), atol=1e-5)


class _Flux:
    """A layer with 96 outputs as the original FLUX joins it, and the model's three."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.joined = torch.nn.Linear(24, 96)
        weights, biases = self.joined.weight.data.chunk(3), self.joined.bias.data.chunk(3)
        self.apart = [torch.nn.Linear(24, 32) for _ in weights]
        for layer, weight, bias in zip(self.apart, weights, biases, strict=True):
            layer.weight.data, layer.bias.data = weight, bias

    def read(self, kind: str, folder: Path, **options: Any) -> tuple[Any, Any]:
        """Module of the trainer, and what was read of its file for each of the three."""
        module = _trained(kind, self.joined, **options)
        name = "lora_unet_double_blocks_0_img_attn_qkv"
        path = folder / "adapter.safetensors"
        save_file(
            {key.replace("lycoris_down_blocks_0_layer", name): one for key, one in _stored(module).items()}, path
        )
        attention = torch.nn.ModuleDict(dict(zip(("to_q", "to_k", "to_v"), self.apart, strict=True)))
        block = torch.nn.ModuleDict({"attn": attention})
        transformer = torch.nn.ModuleDict({"transformer_blocks": torch.nn.ModuleList([block])})
        model = SimpleNamespace(transformer=transformer, _lora_loadable_modules=["transformer"])
        family: Any = SimpleNamespace(id="flux", denoiser="transformer")
        return module, reader.read(model, family, path)["transformer"]


JOINED = [
    "loha",
    "loha and dora",
    "lokr",
    "lokr and dora",
    "full",
    "oft",
    "oft, rescaled",
    "ia3",
    "ia3 of the input",
    "dora of rows",
]


@pytest.mark.parametrize("kind", JOINED)
def test_a_layer_that_the_original_joins_changes_each_of_the_models_layers(kind: str, tmp_path: Path) -> None:
    flux, inputs = _Flux(), _inputs(torch.nn.Linear(24, 96))
    module, changes = flux.read(kind, tmp_path)
    assert list(changes) == flux.apart
    with torch.inference_mode():
        theirs = module(inputs)
    ours = torch.cat([_with(layer, changes[layer], inputs, 1.0) for layer in flux.apart], -1)
    assert (ours - theirs).abs().max() < 2e-6 * theirs.abs().max()


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("dora of columns", {}, "the lengths of joined columns"),
        ("oft", {"lora_dim": 6}, "its blocks of .* rows cross their borders"),
    ],
)
def test_a_joined_layer_that_cannot_be_taken_apart_is_refused(
    kind: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"lora_unet_double_blocks_0_img_attn_qkv.*{reason}"):
        _Flux().read(kind, tmp_path, **options)
