"""What quantizing a component's linear layers makes of its size. Needs no package and reads no file."""

from __future__ import annotations

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.weights.parameter_counts import PackedBytes, ParameterCount, Sums


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
