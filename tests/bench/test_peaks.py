"""Measured peaks of real runs are what was planned.

`tests/worker/offload/test_placement.py` has every plan of text to image, `bench.peaks` all cases.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peaks import Case, measure
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage.local import LocalStorage
from tests.support.combinations import ALL

SMALL, WIDE = (128, 128), (192, 128)


#: Each family, and adapters, masks and control images once; the others in `make judge`.
CASES = [
    Case("sdxl", "LoRA", 1, SMALL, "smallest"),
    Case("sdxl", "inpaint", 2, SMALL, "fastest"),
    Case("sd3", "controlnet", 1, SMALL, "smallest"),
    Case("flux", "txt2img", 2, (256, 192), "smallest"),  # the peak is where finished images are denormalized
]
OTHERS = [
    Case("sdxl", "LoRA", 2, SMALL, "smallest"),
    Case("sd3", "two LoRAs", 2, SMALL, "smallest"),
    Case("flux", "controlnet", 2, WIDE, "smallest"),
    Case("sdxl", "txt2img", 2, SMALL, "smallest"),
    Case("sdxl", "controlnet", 1, WIDE, "smallest"),
    Case("sdxl", "two ControlNets", 1, SMALL, "smallest"),
    Case("sd3", "inpaint", 1, WIDE, "middle"),
    Case("sd3", "controlnet", 2, SMALL, "smallest"),
    Case("flux", "inpaint", 2, SMALL, "middle"),
    Case("flux", "controlnet", 2, (256, 192), "middle"),  # among plans that cost the same
]


@pytest.mark.parametrize(
    "case",
    [*CASES, *(OTHERS if ALL else [])],
    ids=lambda case: f"{case.family}-{case.kind}-{case.images}-{case.size[0]}x{case.size[1]}-{case.position}",
)
def test_a_run_needs_what_was_planned_and_hardly_less(case: Case, tmp_path: Path) -> None:
    """The budget is enforced: beyond its reserve the run would have failed and used a smaller plan."""
    found = measure(case, read_catalogue(BUILT_IN_CATALOGUE), LocalStorage(tmp_path))
    assert found.used == found.planned.name
    assert 0.9 < found.ratio < 1.01
    assert found.holds
