"""Kinds of quantization that a model's row can name: torchao's, by the names that it gives them.

Each value of a linear layer's weight takes 8 bits, and each row of it a scale, made while the model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Quantization:
    """One kind.

    Attributes:
        row_bytes: of a row's scale, and of its zero point where there is one.
        unpacking_bytes: alive for each value while a layer computes, as a test measures them; at least those of
            the value in the dtype that the model computes in.
        config: torchao's class of its configuration.
        tensor: torchao's class of a weight.
    """

    row_bytes: int
    unpacking_bytes: int
    config: str
    tensor: str


QUANTIZATIONS: Mapping[str, Quantization] = MappingProxyType(
    {
        "int8_weight_only": Quantization(5, 0, "Int8WeightOnlyConfig", "Int8Tensor"),
        "float8_weight_only": Quantization(4, 10, "Float8WeightOnlyConfig", "Float8Tensor"),
    }
)
