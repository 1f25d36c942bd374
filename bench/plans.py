"""Writes the tables of `docs/plans.md`: `python -m bench.plans`.

Every published architecture at seven budgets, and where its configurations are from if not from the hub.

Pure arithmetic on `contracts/weights/counts/architectures/` and `contracts/memory/activation_tables/`; nothing is
built, loaded or measured. The text around the tables is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import to_table
from contracts.byte_sizes import gib
from contracts.catalogue.catalogue import Catalogue
from contracts.memory.plan import Plan
from contracts.memory.planner import plan
from contracts.memory.policy import Policy
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import default_workload
from contracts.weights.counts.architectures import Architecture, read_architectures, row_of

PAGE = Path(__file__).parent.parent / "docs" / "plans.md"
GIB = 2**30
BUDGETS = tuple(size * GIB for size in (6, 8, 12, 16, 24, 48, 80))
#: Those whose plans with weights of 8 bits the page has.
QUANTIZED = ("sdxl", "sd3.5-large", "flux.1-dev", "chroma1-hd", "z-image", "qwen-image", "flux.2-dev")


def fill(page: str) -> str:
    """The page with new tables: all plans, those that differ with changes of the images, quantized, origins."""
    architectures = read_architectures()
    usual = [row for one in architectures for row in _rows(one, Policy(cudnn=True))]
    changes = Policy(allow_fp8=True, allow_drop_t5=True, cudnn=True)
    allowed = [row for one in architectures for row in _rows(one, changes)]
    changed = [row for row, before in zip(allowed, usual, strict=True) if row[2] != before[2]]
    before = {(row[0], row[1]): row[2] for row in usual}
    quantized = [one for one in architectures if one.id in QUANTIZED]
    int8 = [row for one in quantized for row in _rows(one, Policy(cudnn=True), "int8_weight_only")]
    smaller = [row for row in int8 if row[2] != before[row[0], row[1]]]
    head = "model | budget | plan | peak | extra s | batch | reason"
    origins = to_table(
        "model | its configurations are from",
        [(one.id, one.configured_from) for one in architectures if one.configured_from],
    )
    tables = iter([*(to_table(head, rows) for rows in (usual, changed, smaller)), origins])
    return re.sub(r"^\| model .*\n(\|.*\n)+", lambda _: next(tables), page, flags=re.MULTILINE)


def _rows(architecture: Architecture, policy: Policy, quantization: str | None = None) -> list[list[str]]:
    model = row_of(architecture, quantization)
    catalogue = Catalogue(root=Path("/nowhere"), default_model=model.id, models=(model,))
    components = read_components(catalogue, model, 2)
    if components is None:
        raise ValueError(f"{model.id} is not a known architecture")
    return [_row(plan(components, default_workload(model), budget, policy)) for budget in BUDGETS]


def _row(chosen: Plan) -> list[str]:
    name = chosen.name if chosen.fits else "none"
    figures = [gib(chosen.peak_bytes), f"{chosen.extra_seconds:g}", str(chosen.batch_images)]
    return [chosen.model, gib(chosen.budget_bytes), name, *figures, chosen.reason]


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
