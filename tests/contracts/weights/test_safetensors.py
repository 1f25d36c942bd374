"""Headers of safetensors files, whole and broken."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.weights.safetensors import NotSafetensors, Tensor, read_header


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file of two tensors, as the library writes it."""
    path = tmp_path / "whole.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}, path, metadata={"format": "np"})
    return path


def _write(path: Path, entries: Any, data: bytes) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_tensors_are_where_the_header_says(whole: Path) -> None:
    tensors = read_header(whole)
    assert {name: (one.dtype, one.shape) for name, one in tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F16", (5,)),
    }
    a = tensors["a"]
    assert whole.read_bytes()[a.begin : a.end] == np.ones(6, np.float32).tobytes()


def test_a_file_whose_length_begins_like_a_pickle_is_none(tmp_path: Path) -> None:
    """1152 is 80 04 in bytes, and so is the begin of a pickle of protocol 4."""
    name = "x" * (1152 - len(json.dumps({"": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})))
    path = _write(tmp_path / "x", {name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1")
    assert path.read_bytes()[:2] == b"\x80\x04"
    assert read_header(path)[name].shape == (1,)


@pytest.mark.parametrize("kept", [0, 7, 20, 300])
def test_a_file_that_is_cut_off_is_refused(whole: Path, kept: int) -> None:
    data = whole.read_bytes()
    whole.write_bytes(data[: min(kept, len(data) - 1)])
    with pytest.raises(NotSafetensors, match=r"cut off|no safetensors"):
        read_header(whole)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_named(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": list(range(100))}, protocol=protocol))
    with pytest.raises(NotSafetensors, match="pickle"):
        read_header(path)


def test_a_zip_as_torch_writes_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(NotSafetensors, match="pickle"):
        read_header(path)


def test_bytes_that_are_no_tensors_are_refused(whole: Path) -> None:
    whole.write_bytes(whole.read_bytes() + b"<script>")
    with pytest.raises(NotSafetensors, match="8 bytes that are no tensors"):
        read_header(whole)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": "one", "data_offsets": [0, 4]},
        {"shape": [1], "data_offsets": [0, 4]},
        [],
    ],
)
def test_a_header_that_does_not_add_up_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(NotSafetensors):
        read_header(_write(tmp_path / "x", {"a": entry}, b"12345678"))


def test_no_json_is_no_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 8) + b"{no json")
    with pytest.raises(NotSafetensors, match="no safetensors file"):
        read_header(path)


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    with pytest.raises(NotSafetensors, match="end to end"):
        read_header(_write(tmp_path / "x", {"a": entry, "b": entry}, b"1234"))


def test_an_empty_tensor_takes_no_place(tmp_path: Path) -> None:
    path = _write(tmp_path / "x", {"a": {"dtype": "U8", "shape": [0, 4], "data_offsets": [0, 0]}}, b"")
    (tensor,) = read_header(path).values()
    assert tensor == Tensor("U8", (0, 4), path.stat().st_size, path.stat().st_size)
