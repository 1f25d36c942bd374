"""A checkpoint in one file, by its header: `.safetensors`, or `.gguf`, whose weights may be packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from contracts.hub.source import GGUF
from contracts.weights.formats.gguf import PackedTensor, read_gguf
from contracts.weights.formats.safetensors import Tensor, read_header
from contracts.weights.quantized_files import QuantizedTensor, tensors_of

#: What the names of a denoiser begin with in a whole checkpoint of an original release.
CHECKPOINT_PREFIX = "model.diffusion_model."
AnyTensor = Tensor | PackedTensor | QuantizedTensor


def read_tensors(file: Path) -> Mapping[str, AnyTensor]:
    """Return a file's tensors by name.

    Raises:
        UnreadableWeights: as `read_header` and `read_gguf`.
        OSError: the file cannot be read.
    """
    return read_gguf(file) if file.suffix == GGUF else tensors_of(read_header(file))


def quantization_of(tensors: Mapping[str, AnyTensor]) -> str | None:
    """Return how weights are packed: the kind that most of their values have, such as `gguf-q4_k`; None: not."""
    kinds: Counter[str] = Counter()
    for tensor in tensors.values():
        if isinstance(tensor, PackedTensor) and tensor.is_packed:
            kinds[tensor.dtype] += tensor.values
    return f"gguf-{kinds.most_common(1)[0][0].lower()}" if kinds else None
