"""LoRA files by their headers: layers, key layout, ranks and sizes.

Refuses files that no worker could use, with the reason. Checks names and shapes only: `finite.py` checks the
values, `lora_models.py` finds the models that a file matches, and `worker/adapters/reader.py` compares the file
with the loaded model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts.errors import AdapterDamaged, AdapterRefused
from contracts.weights.adapters.hypernetwork_files import KIND as HYPERNETWORK
from contracts.weights.adapters.hypernetwork_files import (
    Hypernetwork,
    is_hypernetwork,
    read_hypernetwork,
)
from contracts.weights.adapters.lora_layouts import DENOISER, LoraLayer, read_layers
from contracts.weights.adapters.lora_settings import ScaleSettings, read_settings
from contracts.weights.configs import file_state
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: Whole differences of weights, biases and norms, which ComfyUI writes even where they are zero.
_DIFFERENCES = (".diff_b", ".diff")
#: PEFT's settings of LoHa and LoKr mean other scales than lycoris-lora's tensors do.
_PEFT_SETTINGS = "lora_adapter_metadata"
_CHUNK_BYTES = 2**20


class AdapterFacts(BaseModel):
    """Facts from a LoRA file's header.

    Attributes:
        layout: naming scheme of its keys: `peft`, `kohya`, `comfyui`, `diffusers` (old versions), `xlabs` or
            `lycoris`.
        kinds: what it has for layers: `lora`, `dora`, `loha`, `lokr`, `full`, `oft`, `ia3`; sorted. A hypernetwork
            has one kind and layout, `hypernetwork`.
        ranks: all that occur, ascending; empty where the kinds have none.
        values: number of values in all tensors.
        workspace_values: more values, that a call makes and forgets again, one layer at a time.
        dtype: of most tensors, as safetensors names it.
        changes_text: whether it changes a text encoder.
        models: ids of the catalogue's models that it matches; empty where no checkpoint of the family is here.
    """

    model_config = ConfigDict(frozen=True)

    family: str
    layout: str
    kinds: tuple[str, ...] = ("lora",)
    ranks: tuple[int, ...]
    values: int
    workspace_values: int = 0
    dtype: str
    changes_text: bool
    models: tuple[str, ...] = ()

    @property
    def device_values(self) -> int:
        """Values on the device while it acts."""
        return self.values + self.workspace_values


@dataclass(frozen=True)
class LoraFile:
    """Header of a LoRA file, checked without any model.

    Attributes:
        tensors: by name, without those that change nothing.
        layers: the layers that the file changes; at least one, but of a hypernetwork none.
        settings: how its trainer scaled them, by component.
        hypernetwork: that it is, instead.
    """

    tensors: Mapping[str, Tensor]
    layers: Sequence[LoraLayer]
    settings: Mapping[str, ScaleSettings]
    hypernetwork: Hypernetwork | None = None


def read_lora(file: Path) -> LoraFile:
    """Read the header of a LoRA file.

    Raises:
        AdapterRefused: it is not a safetensors file, not a LoRA, or its settings are invalid.
    """
    try:
        header = read_header(file)
    except NotSafetensors as error:
        raise AdapterDamaged(f"the file {error}") from None
    if is_hypernetwork(header.tensors):
        network = read_hypernetwork(header.tensors, header.metadata)
        return LoraFile(header.tensors, (), {}, network)
    tensors = {
        name: tensor
        for name, tensor in header.tensors.items()
        if not (name.endswith(_DIFFERENCES) and _is_zero(file, tensor))
    }
    on_input = {
        name for name, tensor in tensors.items() if name.endswith(".on_input") and not _is_zero(file, tensor)
    }
    layers, settings = read_layers(tensors, on_input), read_settings(header.metadata)
    unusual = next((layer for layer in layers if layer.change.kind != "lora"), None)
    if settings and unusual is not None:
        raise AdapterRefused(
            f"{_PEFT_SETTINGS} in the file's metadata scales PEFT's {unusual.change.kind} another way than "
            f"{unusual.name[:120]} says; save it without these settings, with an alpha for each layer"
        )
    return LoraFile(tensors, layers, settings)


def _is_zero(file: Path, tensor: Tensor) -> bool:
    """Whether all its values are zero; an empty one's are."""
    with file.open("rb") as stream:
        stream.seek(tensor.begin)
        remaining = tensor.end - tensor.begin
        while remaining > 0:
            data = stream.read(min(remaining, _CHUNK_BYTES))
            if not data or data.count(0) != len(data):
                return False
            remaining -= len(data)
    return True


def describe(lora: LoraFile, family: str, models: Sequence[str] = ()) -> AdapterFacts:
    """Describe a LoRA without comparing it with any model; the operator named its family."""
    dtypes = [tensor.dtype for tensor in lora.tensors.values()]
    return AdapterFacts(
        family=family,
        layout=lora.layers[0].layout if lora.hypernetwork is None else HYPERNETWORK,
        kinds=tuple(sorted({kind for layer in lora.layers for kind in layer.change.kinds})) or (HYPERNETWORK,),
        ranks=tuple(sorted({layer.change.rank for layer in lora.layers} - {None})),
        values=sum(tensor.values for tensor in lora.tensors.values()),
        workspace_values=max((layer.change.workspace_values for layer in lora.layers), default=0),
        dtype=max(dict.fromkeys(dtypes), key=dtypes.count),
        changes_text=any(layer.part != DENOISER for layer in lora.layers),
        models=tuple(models),
    )


def facts_in(file: Path, family: str) -> AdapterFacts | None:
    """Facts of a family's LoRA file, read again only where it has changed; None where no worker could use it.

    Raises:
        OSError: it cannot be read.
    """
    return _facts_in(file, file_state(file), family)


@lru_cache(maxsize=4096)
def _facts_in(file: Path, state: tuple[int, ...], family: str) -> AdapterFacts | None:
    del state
    try:
        return describe(read_lora(file), family)
    except (AdapterRefused, OSError):
        return None
