"""The bench of the GPU runs at tiny size on any CPU, so that it does not rot where there is no GPU."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bench import gpu
from bench.bare import Bare
from bench.full_size import write_catalogue
from bench.trials import parameters
from contracts.catalogue.catalogue import read_catalogue
from contracts.weights.architectures import read_architectures


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
    assert re.search(r"^\| bare diffusers, eager +\| 8 +\| [0-9.]+ +\| 1.00 ", printed, re.MULTILINE), printed
    assert ("a new prompt" in printed) is (family != "sdxl")
    assert re.search(r"^\| 2 +\| [0-9.]+ ", printed, re.MULTILINE)
    for row in ("first load", "switch, once loaded", "a step with it"):
        assert re.search(rf"^\| {row} +\| 0\.\d+ +\| [0-9.]+ ", printed, re.MULTILINE), printed


def test_a_budget_that_nothing_fits_into_is_told_and_the_bench_goes_on() -> None:
    trial = gpu.tiny()
    spec = trial.catalogue.model("shapes-flux")
    row = gpu.budget_row(trial, spec, 2**20, Bare(1.0, None, 1.0))
    assert "memory is too small" in str(row[1])


def test_the_published_steps_are_taken_where_none_are_named(tmp_path: Path) -> None:
    chosen = {one.id: one for one in read_architectures()}
    catalogue = read_catalogue(write_catalogue(chosen, tmp_path))
    trial = dataclasses.replace(gpu.tiny(), catalogue=catalogue, side=1024, steps=None)
    steps = {spec.id: parameters(trial, spec).num_inference_steps for spec in catalogue.models}
    assert (steps["sdxl"], steps["sd3.5-large"], steps["flux.1-dev"]) == (30, 28, 28)
