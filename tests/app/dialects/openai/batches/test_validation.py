"""What is wrong with a batch's file is found line by line, whatever the file has in it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from app.dialects.openai.batches.validation import FileLimits, validate_file
from contracts.batches.records import Batch
from contracts.storage import Storage

URL = "/v1/images/generations"
KEY = "inputs/" + "0" * 64 + ".0.jsonl"
LIMITS = FileLimits(max_line_bytes=10_000, max_lines=1000)


def batch_of(data: bytes) -> Batch:
    return Batch(
        id="batch_0", owner="local", api_key="anonymous", base="", endpoint=URL, completion_window="24h",
        input_file_id="file-0", input_key=KEY, input_bytes=len(data), output_seconds=60,
    )  # fmt: skip


def found(storage: Storage, data: bytes) -> tuple[int, list[tuple[str, int | None, str | None]]]:
    storage.write(KEY, data)
    total, errors = validate_file(storage, batch_of(data), LIMITS, lambda: None)
    return total, [(error.code, error.line, error.param) for error in errors]


def line(**fields: Any) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": URL, "body": {}} | fields).encode()


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b"\xff\xfe{\x00}\x00", "invalid_json_line", None),
        (b'{"custom_id": "\\ud800", "method": "POST", "url": "u", "body": {}}', "invalid_json_line", None),
        (line(body={"seed": float("nan")}), "invalid_json_line", None),
        (line(body=None).replace(b"null", b"[" * 4000 + b"]" * 4000), "invalid_json_line", None),
        (b'{"custom_id": "a", "custom_id": "b"}', "invalid_request", None),
        (line(body={str(number): 0 for number in range(500)}), "invalid_request", None),
        (b"{}", "missing_required_parameter", "custom_id"),
        (line().replace(b', "body": {}', b""), "missing_required_parameter", "body"),
        (line(extra=1), "unknown_parameter", "extra"),
        (line(custom_id=7), "invalid_custom_id", "custom_id"),
        (line(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/images/edits"), "mismatched_endpoint", "url"),
        (line(body=[]), "invalid_body", "body"),
        (line(body=None), "invalid_body", "body"),
    ],
)
def test_a_line_that_is_no_request_is_an_error_with_its_number(
    storage: Storage, data: bytes, code: str, param: str | None
) -> None:
    assert found(storage, line(custom_id="first") + b"\n" + data) == (1, [(code, 2, param)])


def test_line_breaks_of_any_kind_and_empty_lines_are_no_requests(storage: Storage) -> None:
    data = b"\xef\xbb\xbf" + line(custom_id="1") + b"\r\n\n  \n" + line(custom_id="2")

    assert found(storage, data) == (2, [])


def test_an_empty_file_has_no_requests(storage: Storage) -> None:
    assert found(storage, b"\n\n") == (0, [("empty_file", None, None)])


def test_a_file_of_too_many_lines_is_read_no_further(storage: Storage) -> None:
    total, errors = found(storage, b"\n" * 1_000_000)

    assert (total, errors) == (0, [("too_many_lines", 1001, None)])


def test_the_first_fifty_problems_are_shown(storage: Storage) -> None:
    _, errors = found(storage, b"{}\n" * 900)

    assert [number for _, number, _ in errors] == list(range(1, 51))


def test_a_file_without_line_breaks_is_not_held_in_memory(storage: Storage) -> None:
    data = line() + b"\n" + b"x" * 4_000_000
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    assert found(storage, data) == (1, [("line_too_long", 2, None)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 1_500_000
