"""The check of a GPU runs at tiny size on any CPU, so that it does not rot where there is no GPU."""

from __future__ import annotations

import ast
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gpu_check
from tests.support.gpu_blocks import hardware, speed
from tests.support.gpu_blocks.setup import Setup, prepare


def test_every_block_that_needs_no_device_prints_lines_of_json_with_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = prepare(tmp_path, time.monotonic() + 600, tiny=True)
    # What these run has tests of its own, and takes long: compiling, and starting processes.
    slow = ("compiled", "whole_graphs", "t5_arithmetic")
    names = [name for name in gpu_check.ON_ANY_DEVICE if name not in slow]
    failed = [name for name in names if not gpu_check.run(name, setup, limit_seconds=600)]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert failed == [], lines
    rows = {name: [line for line in lines if line["block"] == name] for name in names}
    assert [row["channels_last"] for row in rows["steps"]] == ["off", "on"]
    assert all(row["step_seconds"] > 0 for row in (*rows["steps"], *rows["streaming"]))
    # On the CPU there is no workspace, and all tensors are counted.
    assert all(0.9 < row["of_planned_without_workspace"] < 1.01 for row in rows["workspaces"])
    assert all(row["of_planned"] <= row["of_planned_without_workspace"] for row in rows["workspaces"])
    assert all(0.85 < row["peak_of_plan"] < 1.01 for row in rows["budgets"])
    assert len({row["plan"] for row in rows["budgets"]}) > 1
    assert "denoiser streamed" in rows["streaming"][-1]["plan"]
    assert [row["beside"] for row in rows["cold_beside"]] == ["nothing", "a job"]
    assert rows["cold_beside"][1]["steps"] >= rows["cold_beside"][1]["slices"] - 1 > 2
    assert (rows["moves"][0]["loads"], rows["moves"][0]["evictions"]) == (2, 0)


def test_a_block_that_fails_costs_only_itself_and_none_begins_after_the_deadline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = prepare(tmp_path, time.monotonic() + 600, tiny=True)
    assert not gpu_check.run("environment", setup)
    late = prepare(tmp_path, time.monotonic() - 1, tiny=True)
    assert gpu_check.run("steps", late)
    failed, skipped = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert failed["block"] == "environment"
    assert "error" in failed
    assert skipped == {"block": "steps", "skipped": "no time is left"}


def test_the_program_that_spoils_a_device_names_what_is_there() -> None:
    """It is a text, where no type checker looks, and only a device runs all of it."""
    imports = [node for node in ast.parse(hardware.FAILING).body if isinstance(node, ast.ImportFrom)]
    names = [(node.module or "", alias.name) for node in imports for alias in node.names]
    assert names
    assert all(hasattr(importlib.import_module(module), name) for module, name in names)


def test_what_copies_and_kernels_have_in_common_is_counted_once() -> None:
    assert speed.overlap([(0.0, 4.0), (6.0, 9.0)], [(1.0, 2.0), (3.0, 7.0), (8.0, 20.0)]) == 1.0 + 1.0 + 1.0 + 1.0


def test_a_block_that_takes_too_long_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless(setup: Setup) -> Iterator[dict[str, int]]:
        yield {"row": 1}
        while setup:
            time.sleep(0.01)

    setup = prepare(tmp_path, time.monotonic() + 600, tiny=True)
    monkeypatch.setitem(gpu_check.BLOCKS, "steps", endless)
    assert not gpu_check.run("steps", setup, limit_seconds=0.2)
    row, error = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row == {"block": "steps", "row": 1}
    assert error["error"].startswith("OutOfTimeError")
