"""Kinds of quantization that a model's row can name: torchao's, by its names for them, and bitsandbytes'.

Each value of a linear layer's weight takes 8 or 4 bits, and each row or block of it a scale, made while the model
is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Quantization:
    """One kind.

    Attributes:
        row_bytes: of a row's scale, and of its zero point where there is one.
        unpacking_bytes: alive for each value while a layer computes, as a test measures them; at least those of
            the value in the dtype that the model computes in.
        config: torchao's class of its configuration, or the option of bitsandbytes'.
        tensor: the package's class of a weight.
        package: that makes it. bitsandbytes' is for denoisers on CUDA only.
        packed_values: of a weight, in each byte.
        block_values: of a weight, which share a scale of four bytes; 0: none do.
    """

    row_bytes: int
    unpacking_bytes: int
    config: str
    tensor: str
    package: Literal["torchao", "bitsandbytes"] = "torchao"
    packed_values: int = 1
    block_values: int = 0

    def stored_bytes(self, values: int, rows: int) -> int:
        """Bytes of so many values in so many rows, with their scales."""
        blocks = -(-values // self.block_values) if self.block_values else 0
        return -(-values // self.packed_values) + 4 * blocks + rows * self.row_bytes


QUANTIZATIONS: Mapping[str, Quantization] = MappingProxyType(
    {
        "int8_weight_only": Quantization(5, 0, "Int8WeightOnlyConfig", "Int8Tensor"),
        "float8_weight_only": Quantization(4, 10, "Float8WeightOnlyConfig", "Float8Tensor"),
        "bitsandbytes_int8": Quantization(4, 0, "load_in_8bit", "Int8Params", "bitsandbytes"),
        "bitsandbytes_nf4": Quantization(
            0, 0, "load_in_4bit", "Params4bit", "bitsandbytes", packed_values=2, block_values=64
        ),
    }
)


def kinds_of(package: str) -> tuple[str, ...]:
    """Return the kinds that a package makes."""
    return tuple(kind for kind, row in QUANTIZATIONS.items() if row.package == package)
