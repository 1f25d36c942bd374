"""The bench of the GPU runs at tiny size on any CPU, so that it does not rot where there is no GPU."""

from __future__ import annotations

import dataclasses
import re

import pytest

from bench import gpu


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_the_bench_prints_all_its_tables_at_tiny_size(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    trial = gpu.tiny()
    spec = trial.catalogue.model(f"shapes-{family}")
    catalogue = trial.catalogue.model_copy(update={"models": (spec,), "default_model": spec.id})
    gpu.run(dataclasses.replace(trial, catalogue=catalogue))
    printed = capsys.readouterr().out
    ratios = re.findall(r"^\| 0\.0\d+ +\| [^|]+ \| [^|]+ \| [^|]+ \| ([0-9.]+) ", printed, re.MULTILINE)
    assert len(ratios) == len(trial.budgets)
    assert all(0.85 <= float(ratio) <= 1.15 for ratio in ratios), printed
    for speed, runs in (("exact", 8), ("fast", 5)):
        assert re.search(rf"^\| {speed}, compiled: off +\| {runs} ", printed, re.MULTILINE), printed
        assert re.search(rf"^\| {speed}, compiled: blocks, aot_eager +\| {runs} ", printed, re.MULTILINE), printed
    assert ("a new prompt" in printed) is (family != "sdxl")
    assert re.search(r"^\| 2 +\| [0-9.]+ ", printed, re.MULTILINE)
