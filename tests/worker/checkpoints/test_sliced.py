"""Models that are loaded slice by slice: the same weights, and no default of torch's is changed in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from tests.support.original_layout import write_sdxl_file
from worker.checkpoints.loader import load_model
from worker.checkpoints.sliced import loaders_sliced
from worker.families import get_family
from worker.runtime import slices

_SLICE_BYTES = 2**17


def _load(catalogue: Catalogue, spec: ModelSpec, path: Path) -> dict[str, torch.Tensor]:
    """The weights of a model in bfloat16, which its files are not in, and its denoiser's in 8 bits."""
    family = get_family(spec.family_spec.id)
    pipeline = load_model(catalogue, spec, family, path, torch.bfloat16)
    pipeline.components[family.denoiser].enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
    }


def _in_force() -> dict[str, Any]:
    """What libraries change while they construct models."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "modes": torch._C._len_torch_function_stack(),
        "dispatch": torch._C._len_torch_dispatch_stack(),
        "init": {name: getattr(torch.nn.init, name) for name in dir(torch.nn.init) if name.endswith("_")},
        "linear": torch.nn.Linear.reset_parameters,
        "register": (torch.nn.Module.register_parameter, torch.nn.Module.register_buffer),
        "make": (torch.empty, torch.zeros, torch.ones, torch.linspace, torch.arange),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "classes": (diffusers.ModelMixin.__init__, torch.nn.Module.__init__),
    }


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_the_libraries_change_is_not_in_force_in_a_pause(
    catalogue: Catalogue, two_widths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", _SLICE_BYTES)
    spec, path = catalogue.model("shapes-sd3"), catalogue.root / "shapes-sd3"
    if kind == "file":
        spec, path = catalogue.model("shapes-sdxl"), tmp_path / "model.safetensors"
        write_sdxl_file(two_widths, path)
        spec = spec.model_copy(update={"source": str(path), "config": str(two_widths)})
    before, pauses = _in_force(), []

    def pause() -> None:
        assert _in_force() == before
        torch.rand(1000)  # others draw numbers, too
        pauses.append(1)

    whole = _load(catalogue, spec, path)
    with slices.cut(pause), loaders_sliced():
        sliced = _load(catalogue, spec, path)
    total = sum(tensor.nbytes for tensor in whole.values())
    assert len(pauses) > total / _SLICE_BYTES / 4
    assert sliced.keys() == whole.keys()
    for name, tensor in sliced.items():
        assert torch.equal(tensor.view(torch.uint8), whole[name].view(torch.uint8)), name
