"""Writes small GGUF files with the package that llama.cpp's converters use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from gguf.quants import quantize


def write_gguf(file: Path, tensors: Mapping[str, torch.Tensor], kind: str = "Q8_0") -> None:
    """Write tensors as converters do: matrices packed where their rows have whole blocks, the rest in float32."""
    writer = gguf.GGUFWriter(file, "flux")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    number = gguf.GGMLQuantizationType[kind]
    block_values = gguf.GGML_QUANT_SIZES[number][0]
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if name.endswith(".weight") and values.ndim == 2 and values.shape[1] % block_values == 0:
            writer.add_tensor(name, quantize(values, number), raw_dtype=number)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
