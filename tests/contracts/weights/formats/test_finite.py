"""NaN and infinite values are found in the bytes of a file, in every dtype."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.formats.finite import check_finite
from contracts.weights.formats.safetensors import read_header


def test_a_file_with_nan_values_is_refused() -> None:
    path = BUILT_IN_CATALOGUE.parent / "loras" / "bad" / "not-a-number.safetensors"
    with pytest.raises(AdapterRefused, match="contains NaN or infinite values"):
        check_finite(path, read_header(path).tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_one_non_finite_value_is_found_in_every_dtype_and_the_largest_finite_ones_pass(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    path = tmp_path / "x.safetensors"
    tensor = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    tensor[:2] = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=torch.float64)
    save_file({"a": tensor.to(dtype)}, path)
    check_finite(path, read_header(path).tensors)
    tensor[700] = value
    save_file({"a": tensor.to(dtype)}, path)
    with pytest.raises(AdapterRefused, match=r"^a contains NaN or infinite values$"):
        check_finite(path, read_header(path).tensors)
