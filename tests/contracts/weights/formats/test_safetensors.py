"""Headers of safetensors files, complete and broken."""

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

from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A file of two tensors, as the library writes it."""
    path = tmp_path / "complete.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}, path, metadata={"format": "np"})
    return path


def _write(path: Path, entries: Any, data: bytes) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_tensors_are_found_by_their_offsets(complete: Path) -> None:
    tensors = read_header(complete).tensors
    assert {name: (one.dtype, one.shape) for name, one in tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F16", (5,)),
    }
    a = tensors["a"]
    assert complete.read_bytes()[a.begin : a.end] == np.ones(6, np.float32).tobytes()


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """1152 is 80 04 in bytes, as is the beginning of a pickle of protocol 4."""
    header: dict[str, Any] = {"__metadata__": {"": ""}, "x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header["__metadata__"] = {"k": "y" * (1151 - len(json.dumps(header)))}
    path = _write(tmp_path / "x", header, b"1")
    assert path.read_bytes()[:2] == b"\x80\x04"
    assert read_header(path).tensors["x"].shape == (1,)


@pytest.mark.parametrize("length", [0, 7, 20, 300])
def test_a_truncated_file_is_refused(complete: Path, length: int) -> None:
    data = complete.read_bytes()
    complete.write_bytes(data[: min(length, len(data) - 1)])
    with pytest.raises(NotSafetensors, match=r"truncated|not a safetensors"):
        read_header(complete)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_refused_as_such(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": list(range(100))}, protocol=protocol))
    with pytest.raises(NotSafetensors, match="pickle"):
        read_header(path)


def test_a_zip_as_torch_writes_it_is_refused_as_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(NotSafetensors, match="pickle"):
        read_header(path)


def test_bytes_that_belong_to_no_tensor_are_refused(complete: Path) -> None:
    complete.write_bytes(complete.read_bytes() + b"<script>")
    with pytest.raises(NotSafetensors, match="8 bytes that belong to no tensor"):
        read_header(complete)


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
def test_an_inconsistent_header_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(NotSafetensors):
        read_header(_write(tmp_path / "x", {"a": entry}, b"12345678"))


def test_a_header_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 8) + b"{no json")
    with pytest.raises(NotSafetensors, match="not a safetensors file"):
        read_header(path)


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    with pytest.raises(NotSafetensors, match="overlap or leave gaps"):
        read_header(_write(tmp_path / "x", {"a": entry, "b": entry}, b"1234"))


def test_an_empty_tensor_takes_no_bytes(tmp_path: Path) -> None:
    path = _write(tmp_path / "x", {"a": {"dtype": "U8", "shape": [0, 4], "data_offsets": [0, 0]}}, b"")
    (tensor,) = read_header(path).tensors.values()
    assert tensor == Tensor("U8", (0, 4), path.stat().st_size, path.stat().st_size)
