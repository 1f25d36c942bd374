"""Writes the tables of `docs/plans.md`, published models at seven budgets: `python -m bench.plans`.

Pure arithmetic on `contracts/weights/counts/architectures/` and `contracts/memory/activation_tables/`; nothing is
built, loaded or measured. The text around the tables is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import to_table
from contracts.byte_sizes import gib
from contracts.catalogue.catalogue import Catalogue
from contracts.memory.components import read_components
from contracts.memory.plan import Plan, default_workload
from contracts.memory.planner import plan
from contracts.memory.policy import Policy
from contracts.weights.counts.architectures import read_architectures, row_of

PAGE = Path(__file__).parent.parent / "docs" / "plans.md"
GIB = 2**30
BUDGETS = tuple(size * GIB for size in (6, 8, 12, 16, 24, 48, 80))
#: From small to large.
MODELS = (
    "sd1.5",
    "sd2.1",
    "sdxl",
    "sdxl-refiner",
    "sd3-medium",
    "sd3.5-large",
    "flux.1-dev",
    "pixart-sigma",
    "pixart-alpha",
    "chroma1-hd",
    "z-image",
    "qwen-image",
    "qwen-image-layered",
    "flux.2-dev",
    "flux.2-klein-4b",
    "flux.2-klein-9b",
    "lumina-image-2.0",
    "sana-1.6b",
    "sana-sprint-1.6b",
    "hunyuandit-1.2",
    "kolors",
    "ovis-image-7b",
    "auraflow-v0.3",
    "if-i-xl",
    "dit-xl-2-256",
    "dit-xl-2-512",
)
#: Those whose plans with weights of 8 bits the page has.
QUANTIZED = ("sdxl", "sd3.5-large", "flux.1-dev", "chroma1-hd", "z-image", "qwen-image", "flux.2-dev")


def fill(page: str) -> str:
    """The page with new tables: all plans, and those that differ with changes of the images, and quantized."""
    usual = [row for name in MODELS for row in _rows(name, Policy(cudnn=True))]
    changes = Policy(allow_fp8=True, allow_drop_t5=True, cudnn=True)
    allowed = [row for name in MODELS for row in _rows(name, changes)]
    changed = [row for row, before in zip(allowed, usual, strict=True) if row[2] != before[2]]
    before = {(row[0], row[1]): row[2] for row in usual}
    int8 = [row for name in QUANTIZED for row in _rows(name, Policy(cudnn=True), "int8_weight_only")]
    smaller = [row for row in int8 if row[2] != before[row[0], row[1]]]
    head = "model | budget | plan | peak | extra s | batch | reason"
    tables = iter([to_table(head, usual), to_table(head, changed), to_table(head, smaller)])
    return re.sub(r"^\| model .*\n(\|.*\n)+", lambda _: next(tables), page, flags=re.MULTILINE)


def _rows(name: str, policy: Policy, quantization: str | None = None) -> list[list[str]]:
    architecture = next(one for one in read_architectures() if one.id == name)
    model = row_of(architecture, quantization)
    catalogue = Catalogue(root=Path("/nowhere"), default_model=name, models=(model,))
    components = read_components(catalogue, model, 2)
    if components is None:
        raise ValueError(f"{name} is not a known architecture")
    return [_row(plan(components, default_workload(model), budget, policy)) for budget in BUDGETS]


def _row(chosen: Plan) -> list[str]:
    name = chosen.name if chosen.fits else "none"
    figures = [gib(chosen.peak_bytes), f"{chosen.extra_seconds:g}", str(chosen.batch_images)]
    return [chosen.model, gib(chosen.budget_bytes), name, *figures, chosen.reason]


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
