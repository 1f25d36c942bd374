"""Headers of GGUF files: what the reference reader reads, and what hostile ones are refused for."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFLinear, GGUFParameter

from contracts.weights.checkpoint_files import quantization_of, read_tensors
from contracts.weights.formats.gguf import KINDS, NotGguf, read_gguf
from counting.live_tensors import Follower
from tests.support.gguf_files import write_gguf
from tests.support.gguf_headers import entry, header, number, pair

F32, Q8_0, Q5_K = 0, 8, 13
MIB = 2**20
ONE = entry("a", [32], F32, 0)


def test_the_kinds_are_those_that_diffusers_can_compute_with_and_their_sizes_are_the_packages() -> None:
    plain = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16}
    assert {gguf.GGMLQuantizationType(one) for one in KINDS} == plain | set(SUPPORTED_GGUF_QUANT_TYPES)
    for one, (name, block_values, block_bytes, _) in KINDS.items():
        kind = gguf.GGMLQuantizationType(one)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (block_values, block_bytes))


@pytest.mark.parametrize("one", [one for one in KINDS if KINDS[one][3]], ids=lambda one: KINDS[one][0])
def test_what_a_layer_takes_to_unpack_itself_is_what_the_table_says(one: int) -> None:
    _, block_values, block_bytes, unpacking = KINDS[one]
    layer = GGUFLinear(256, 1024, compute_dtype=torch.bfloat16)
    stored = torch.zeros(1024, 256 // block_values * block_bytes, dtype=torch.uint8)
    layer.weight = GGUFParameter(stored, quant_type=gguf.GGMLQuantizationType(one))
    inputs = torch.zeros(1, 256, dtype=torch.bfloat16)
    steps, _ = Follower(layer, 1).follow(lambda: layer(inputs))
    assert unpacking == pytest.approx(steps[:, 0].max() / (1024 * 256), rel=0.02)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_file_is_read_as_the_packages_reader_reads_it(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    shapes = {"a.weight": (6, 64), "a.bias": (3,), "b.weight": (5, 7)}
    write_gguf(file, {name: torch.randn(shape) for name, shape in shapes.items()}, kind)
    found = read_gguf(file)
    reader = gguf.GGUFReader(file)
    for tensor in reader.tensors:
        own = found[tensor.name]
        assert (own.dtype, own.begin, own.stored_bytes) == (
            tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes,
        )  # fmt: skip
        assert list(own.shape) == list(reversed(tensor.shape.tolist()))
        assert own.values == tensor.n_elements
    assert len(found) == len(reader.tensors)
    assert quantization_of(read_tensors(file)) == f"gguf-{kind.lower()}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04" + bytes(60), "not a GGUF file"),
        (header([ONE], version=1) + bytes(128), "version 1 of the format"),
        (header([ONE], version=3 << 24) + bytes(128), "version .* little-endian"),
        (header([ONE], counts=(2**63, 0)) + bytes(128), "9223372036854775808 tensors .* at most 16384"),
        (header([ONE], counts=(1, 2**63)) + bytes(128), "entries of metadata; at most"),
        (header([ONE], counts=(9000, 0)), "truncated"),
        (header([ONE]) + bytes(127), "truncated: 1 bytes are missing"),
        (header([ONE]) + bytes(192), "contains 64 bytes that belong to no tensor"),
        (header([ONE, ONE]) + bytes(128), "two tensors of one name|overlaps"),
        (header([ONE, entry("b", [32], F32, 0)]) + bytes(128), "b overlaps another tensor"),
        (header([ONE, entry("b", [32], F32, 256)]) + bytes(512), "leaves a gap"),
        (header([entry("a", [32], F32, 2**63)]) + bytes(128), "overlaps another tensor, or leaves a gap"),
        (header([entry("a", [32], F32, 4)]) + bytes(160), "not at a multiple of 32"),
        (header([entry("a", [2**40], F32, 0)]), "2\\^40 values"),
        (header([entry("a", [2**32, 2**32], F32, 0)]), "2\\^40 values"),
        (header([entry("a", [2**63, 2**63, 2**63, 4], F32, 0)]), "2\\^40 values"),
        (header([entry("a", [0], F32, 0)]), "an empty side"),
        (header([entry("a", [2**39], F32, 0)]), "bytes are missing"),
        (header([entry("a", [], F32, 0)]), "0 axes"),
        (header([entry("a", [1], F32, 0, axes=2**32 - 1)]), "4294967295 axes"),
        (header([entry("a", [33, 2], Q8_0, 0)]) + bytes(68), "33 values, not a multiple of the 32 of a Q8_0"),
        (header([entry("a", [32, 8], Q5_K, 0)]) + bytes(176), "32 values, not a multiple of the 256 of a Q5_K"),
        (header([entry("a", [256], 16, 0)]) + bytes(128), "cannot compute with .number 16, a.; it can with F32"),
        (header([entry(b"\xff\xfe", [32], F32, 0)]) + bytes(128), "not UTF-8"),
        (header([entry("a" * 256, [32], F32, 0)]) + bytes(128), "a name of 256 bytes; at most 255"),
        (header([ONE], [pair("general.alignment", 4, number("<I", 0))]) + bytes(128), "not a power of two"),
        (header([ONE], [pair("general.alignment", 4, number("<I", 3))]) + bytes(128), "not a power of two"),
        (header([ONE], [pair("general.alignment", 10, number("<Q", 32))]) + bytes(128), "a number of 32 bits"),
        (header([ONE], [pair("x", 99, b"")]) + bytes(128), "the unknown type 99"),
        (header([ONE], [pair("x", 9, number("<IQ", 9, 1))]) + bytes(128), "arrays in arrays"),
        (header([ONE], [pair("x", 9, number("<IQ", 4, 2**62))]) + bytes(128), "truncated"),
        (header([ONE], [pair("x", 8, number("<Q", 2**64 - 1))]) + bytes(128), "truncated"),
        (header([ONE], [pair("x", 9, number("<IQ", 0, 5 * MIB))]) + bytes(5 * MIB), "more than 4194304 bytes"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_with_the_reason(raw: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    file.write_bytes(raw)
    with pytest.raises(NotGguf, match=reason):
        read_gguf(file)


def test_metadata_of_all_types_and_another_alignment_are_passed_over(tmp_path: Path) -> None:
    metadata = [
        pair("general.architecture", 8, number("<Q", 4) + b"flux"),
        pair("general.alignment", 4, number("<I", 64)),
        pair("names", 9, number("<IQ", 8, 2) + 2 * (number("<Q", 1) + b"x")),
        pair("flags", 9, number("<IQ", 7, 3) + bytes(3)),
        pair("scale", 12, number("<d", 0.5)),
    ]
    raw = header([ONE], metadata)
    file = tmp_path / "one.gguf"
    file.write_bytes(raw + bytes(-len(raw) % 64) + bytes(128))
    assert read_gguf(file)["a"].end == file.stat().st_size


def test_a_file_without_packed_weights_is_not_quantized(tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    write_gguf(file, {"a.weight": torch.randn(6, 8)})
    assert quantization_of(read_tensors(file)) is None
