"""What quantizing a component's linear layers makes of its size. Needs no package and reads no file."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.weights.parameter_counts import PackedBytes, ParameterCount, Sums


@dataclass(frozen=True)
class QuantizedTensor:
    """One weight as it is stored once it is quantized, to be counted like a packed one of a file.

    Attributes:
        dtype: name of its kind.
        shape: of its values.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """Number of values."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def stored_bytes(self) -> int:
        """Bytes of its values and scales."""
        return self.values + self.shape[0] * QUANTIZATIONS[self.dtype].row_bytes

    @property
    def unpacking_bytes(self) -> int:
        """Bytes that its layer takes for a moment, beside its values in the model's dtype."""
        return self.values * QUANTIZATIONS[self.dtype].unpacking_bytes

    @property
    def copy_bytes(self) -> int:
        """Bytes of each value in another dtype than the model's."""
        return 0

    @property
    def copies_output(self) -> bool:
        """Whether its layer makes its result twice: without scales or bias, and with them."""
        return True


def quantized(count: ParameterCount, kind: str) -> ParameterCount:
    """Count a denoiser whose linear layers are quantized, by its count before that."""
    row, linear = QUANTIZATIONS[kind], count.linear
    both = zip(linear.values, linear.rows, strict=True)
    sizes = Sums(*(values + rows * row.row_bytes for values, rows in both))
    packed = PackedBytes(
        *sizes,
        layer_values=linear.values.leaf,
        unpacking_bytes=linear.values.leaf * row.unpacking_bytes,
        copies_output=bool(linear.values.leaf),
    )
    return ParameterCount(*linear.others, packed=packed)
