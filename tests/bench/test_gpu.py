"""The bench of the GPU runs at tiny size on any CPU, so that it does not rot where there is no GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench import gpu
from bench.full_size import write_catalogue
from bench.trials import parameters
from contracts.catalogue.reader import read_catalogue
from contracts.weights.counts.architectures import read_architectures


def test_the_bench_prints_all_its_rows_at_tiny_size(capsys: pytest.CaptureFixture[str]) -> None:
    """FLUX has all rows, those of T5 included; compiling takes long, and has tests of its own."""
    trial = gpu.tiny()
    spec = trial.catalogue.model("shapes-flux")
    catalogue = trial.catalogue.model_copy(update={"models": (spec,), "default_model": spec.id})
    gpu.run(dataclasses.replace(trial, catalogue=catalogue))
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {len(rows[0])}, printed
    runs = {row[0]: row[3] for row in rows}
    names = ("bare diffusers, eager", "exact", "exact, with a LoRA", "fast", "images in one call: 2")
    assert [runs[name] for name in names] == ["8", "8", "8", "5", "8"], printed
    assert {"T5 on the CPU, a new prompt", "T5 on the CPU, the same again"} <= runs.keys(), printed


def test_a_budget_that_nothing_fits_into_is_told_and_the_bench_goes_on() -> None:
    trial = gpu.tiny()
    spec = trial.catalogue.model("shapes-flux")
    (row,) = gpu.measure(trial, spec, 1.0, {"budget_bytes": 2**20}, {"budget": {}})
    assert "memory is too small" in str(row[2])


def test_the_published_steps_are_taken_where_none_are_named(tmp_path: Path) -> None:
    expected = {"sdxl": 30, "sd3.5-large": 28, "flux.1-dev": 28}
    chosen = {one.id: one for one in read_architectures() if one.id in expected}
    catalogue = read_catalogue(write_catalogue(chosen, tmp_path))
    trial = dataclasses.replace(gpu.tiny(), catalogue=catalogue, side=1024, steps=None)
    steps = {spec.id: parameters(trial, spec).num_inference_steps for spec in catalogue.models}
    assert steps == expected
