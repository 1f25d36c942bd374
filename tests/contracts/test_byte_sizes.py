"""Sizes as people read them."""

from __future__ import annotations

import pytest

from contracts.byte_sizes import gib


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (2**20, "1.0 MiB"), (2**30, "1.0 GiB"), (25 * 2**30 // 2, "12.5 GiB")]
)
def test_bytes_are_printed_in_gib_or_mib(size: int, text: str) -> None:
    assert gib(size) == text
