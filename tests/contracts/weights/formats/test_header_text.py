"""Hostile headers: whatever bytes a client sends, they are a valid header or one kind of error."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.weights.formats.header_text import NotSafetensors, read_text
from contracts.weights.formats.safetensors import VALUE_BYTES, read_header
from tests.support.combinations import ALL

ENTRY = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
OTHER = '{"dtype":"U8","shape":[1],"data_offsets":[1,2]}'


def _write(folder: Path, header: bytes, data: bytes = b"1") -> Path:
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def _with_shape(shape: str, end: int | str = 1) -> str:
    return f'{{"a":{{"dtype":"U8","shape":{shape},"data_offsets":[0,{end}]}}}}'


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_with_shape("[" + ",".join(["1e308"] * 8000) + "]"), "too long"),
        (_with_shape("[1e308]"), "whole numbers"),
        (_with_shape("[1.0]"), "whole numbers"),
        (_with_shape("[true]"), "whole numbers"),
        (_with_shape('["1"]'), "whole numbers"),
        (_with_shape("[Infinity]"), "whole numbers"),
        (_with_shape("[NaN]"), "whole numbers"),
        (_with_shape("[-1]"), "whole numbers"),
        (_with_shape("[1,1,1,1,1,1,1,1,1]"), "at most 8 whole numbers"),
        (_with_shape("[1099511627776]"), "whole numbers from 0 to 2\\^40"),
        (_with_shape("[1099511627775,0]", 0), "bytes that belong to no tensor"),
        (_with_shape("[1099511627775,2,0]", 0), "2\\^40 values or more"),
        (_with_shape("[" + "9" * 900 + "]"), "whole numbers"),
        (_with_shape("[" + "9" * 100_000 + "]"), "too long"),
        (_with_shape("[" * 470 + "]" * 470), "not valid JSON|whole numbers"),
        (_with_shape("[1]", "true"), "two whole numbers of bytes"),
        (_with_shape("[1]", "1.0"), "two whole numbers of bytes"),
        (_with_shape("[1]", 2**62), "two whole numbers of bytes"),
        (_with_shape("[2]"), "does not match its shape"),
        (_with_shape("[1099511627775]", 2**40 - 1), "truncated"),
        ('{"a":' + "[" * 100_000, "not an object"),
        ('{"a":' + '{"a":' * 100_000, "not an object"),
        ('{"a":null}', "not an object"),
        ("{" * 100_000, "malformed"),
        (f'{{"a":{ENTRY},"a":{OTHER}}}', "'a' twice"),
        ('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "not valid JSON"),
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}', "exactly dtype, shape"),
        ('{"a":{"dtype":[],"shape":[1],"data_offsets":[0,1]}}', "unsupported dtype"),
        (f'{{"":{ENTRY}}}', "empty"),
        (f'{{"{"a" * 513}":{ENTRY}}}', "longer than 512 characters"),
        (f'{{"a\\n":{ENTRY}}}', "not printable"),
        (f'{{"\\ud800":{ENTRY}}}', "malformed"),
        (f'{{"a":{ENTRY},}}', "malformed"),
        (f'{{"a":{ENTRY}}} {{}}', "malformed"),
        (f'{{"__metadata__":{{"a":1}},"b":{ENTRY}}}', "malformed"),
        (f'{{"__metadata__":{{"a":"1","a":"2"}},"b":{ENTRY}}}', "'a' twice"),
        ("{" + ",".join(f'"{n}":{ENTRY}' for n in range(16_400)) + "}", "more than 16384 tensors"),
        ('{"__metadata__":{' + ",".join(f'"{n}":""' for n in range(16_385)) + "}}", "more than 16384 entries"),
    ],
    ids=lambda value: value[:40],
)
def test_a_header_that_breaks_a_bound_is_refused_with_the_reason(tmp_path: Path, header: str, reason: str) -> None:
    with pytest.raises(NotSafetensors, match=reason) as caught:
        read_header(_write(tmp_path, header.encode()))
    str(caught.value).encode()  # can be sent
    assert len(str(caught.value)) < 300


def test_a_header_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotSafetensors, match="not UTF-8"):
        read_header(_write(tmp_path, b'{"\xff":1}'))


@pytest.mark.parametrize("length", [4 * 2**20 + 1, 2**63, 2**64 - 1])
def test_a_header_over_4_mib_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", length) + b"{")
    with pytest.raises(NotSafetensors, match=f"header of {length} bytes; at most 4194304"):
        read_header(path)


def test_spaces_order_and_escapes_are_as_json_allows(tmp_path: Path) -> None:
    header = (
        ' {\n "\\u0061" : { "data_offsets": [ 0, 1 ],\t"shape": [], "dtype": "U8" } , '
        '"__metadata__" : { "k{" : "\\ud83d\\ude00}" } }  '
    )
    text = header.strip(" ") + " "
    found = read_header(_write(tmp_path, text.encode()))
    assert list(found.tensors) == ["a"]
    assert found.tensors["a"].shape == ()
    assert found.metadata == {"k{": "\U0001f600}"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*VALUE_BYTES, "X"]) | _JSON,
        "shape": st.lists(st.integers(-1, 3) | st.floats() | st.booleans(), max_size=9) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 9) | st.floats() | st.booleans(), max_size=3) | _JSON,
    },
    optional={"more": _JSON},
)
_NAMES = st.text(max_size=3) | st.just("__metadata__")
_HEADERS = st.dictionaries(_NAMES, _ENTRIES | _JSON, max_size=3).map(json.dumps)


# At the first example hypothesis reads the constants of all modules, which is not an example's slowness.
@settings(
    max_examples=300 if ALL else 60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(header=st.binary(max_size=80) | _HEADERS.map(str.encode), data=st.binary(max_size=9))
def test_any_bytes_are_a_valid_header_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes
) -> None:
    path = _write(tmp_path_factory.getbasetemp(), b"{" + header.removeprefix(b"{"), data)
    try:
        tensors = read_header(path).tensors.values()
    except NotSafetensors:
        return
    assert sum(tensor.end - tensor.begin for tensor in tensors) == len(data)
    assert all(8 < tensor.begin <= tensor.end <= path.stat().st_size for tensor in tensors)


def test_every_beginning_of_a_valid_header_is_refused() -> None:
    text = f'{{"__metadata__":{{"format":"pt"}},"a.b":{ENTRY},"c":{OTHER}}}'
    entries, metadata = read_text(text.encode())
    assert (list(entries), metadata) == (["a.b", "c"], {"format": "pt"})
    for length in range(len(text)):
        with pytest.raises(NotSafetensors):
            read_text(text[:length].encode())
