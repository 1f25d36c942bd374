"""The check of a GPU runs at tiny size on any CPU, so that it does not rot where there is no GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support import gpu_check


def test_the_blocks_that_need_no_device_print_a_line_of_json_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = gpu_check.prepare(tmp_path, time.monotonic() + 600, tiny=True)
    for name in ("host_memory", "steps"):
        assert gpu_check.run(name, setup)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["block"] for line in lines] == ["host_memory", "steps", "steps"]
    assert [line.get("channels_last") for line in lines] == [None, "off", "on"]
    assert all(line["step_seconds"] > 0 for line in lines[1:])


def test_a_block_that_fails_costs_only_itself_and_none_begins_after_the_deadline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = gpu_check.prepare(tmp_path, time.monotonic() + 600, tiny=True)
    assert not gpu_check.run("environment", setup)
    late = gpu_check.prepare(tmp_path, time.monotonic() - 1, tiny=True)
    assert gpu_check.run("steps", late)
    failed, skipped = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert failed["block"] == "environment"
    assert "error" in failed
    assert skipped == {"block": "steps", "skipped": "no time is left"}
