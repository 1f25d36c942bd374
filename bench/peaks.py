"""Peaks of real runs beside what was planned for them: `python -m bench.peaks`.

The shapes models on the CPU, where a budget is enforced by counting every tensor (`worker/meter.py`). Each family,
kind of job, number of images and size runs on the fastest plan of its ladder, on the one in the middle and on the
smallest, within a budget that just admits that plan. Bytes do not depend on the machine, nor on what else runs
there. Exits non-zero where a run took another plan than its budget was made for, or a hundredth more than planned.
"""

from __future__ import annotations

import io
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from bench.nobody import Nobody
from bench.report import keep_arithmetic, options, report
from bench.table import print_table
from contracts.catalogue.catalogue import Catalogue, read_catalogue
from contracts.catalogue.families import FAMILIES, Task
from contracts.memory.plan import Plan
from contracts.requests.parameters import JobParameters
from contracts.requests.resolution import StoredImage, resolve
from contracts.requests.schema import REQUESTS
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from worker.generation import generate as jobs
from worker.pool.plan_selector import PlanSelector
from worker.pool.pool import PLANNED_SHARE, Pool
from worker.runtime.warnings import silence_known_warnings

#: Where on its ladder a plan stands, from the fastest to the smallest.
RUNGS = {"fastest": 0.0, "middle": 0.5, "smallest": 1.0}
#: What is asked for -> its task, its ControlNets and its adapters.
KINDS = {
    "txt2img": (Task.TXT2IMG, 0, 0),
    "img2img": (Task.IMG2IMG, 0, 0),
    "inpaint": (Task.INPAINT, 0, 0),
    "controlnet": (Task.CONTROLNET, 1, 0),
    "two ControlNets": (Task.CONTROLNET, 2, 0),
    "LoRA": (Task.TXT2IMG, 0, 1),
    "two LoRAs": (Task.TXT2IMG, 0, 2),
}
PICTURE, MASK = "inputs/picture.png", "inputs/mask.png"
IMAGES, SIZES = (1, 2), ((128, 128), (256, 192))
#: What may be planned too little, as a share of the plan.
TOLERANCE = 0.01
#: Two: only then do streamed weights come ahead of their turn.
_STEPS = 2


@dataclass(frozen=True)
class Case:
    """One job, and where on its ladder of plans it runs."""

    family: str
    kind: str
    images: int
    size: tuple[int, int]
    rung: str


@dataclass(frozen=True)
class Measured:
    """What became of a case.

    Attributes:
        planned: the plan that its budget was made for.
        taken: name of the plan that it ran on.
    """

    planned: Plan
    taken: str
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """Peak ÷ plan."""
        return self.peak_bytes / self.planned.peak_bytes

    @property
    def holds(self) -> bool:
        """Whether it ran as planned."""
        return self.taken == self.planned.name and self.ratio <= 1 + TOLERANCE


def order(case: Case, catalogue: Catalogue) -> JobParameters:
    """The case's job, validated like any other."""
    task, controls, loras = KINDS[case.kind]
    width, height = case.size
    fields: dict[str, object] = {
        "model": next(row.id for row in catalogue.models if row.family == case.family),
        "prompt": "a large blue square on a white background",
        "width": width, "height": height, "num_images": case.images, "num_inference_steps": _STEPS, "seed": 1,
    }  # fmt: skip
    keys: dict[str, str] = {}
    if task in (Task.IMG2IMG, Task.INPAINT):
        fields |= {"image": "-", "strength": 1.0}
        keys["image"] = PICTURE
    if task is Task.INPAINT:
        fields["mask_image"], keys["mask_image"] = "-", MASK
    nets = [row.id for row in catalogue.controlnets if row.family == case.family][:controls]
    if nets:
        fields["controls"] = [{"controlnet": net, "image": "-"} for net in nets]
        keys |= {f"controls.{number}.image": PICTURE for number in range(controls)}
    fields["loras"] = [{"name": row.id} for row in catalogue.loras if row.family == case.family][:loras]
    request = REQUESTS[task].model_validate(fields)
    pictures = {field: StoredImage(key, width, height) for field, key in keys.items()}
    return resolve(request, check(request, catalogue), pictures)


def draw(storage: Storage, size: tuple[int, int]) -> None:
    """Put a picture and a mask of this size into the storage."""
    width, height = size
    for key, mode in ((PICTURE, "RGB"), (MASK, "L")):
        image, file = Image.new(mode, size, "black"), io.BytesIO()
        ImageDraw.Draw(image).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill="white")
        image.save(file, "PNG")
        storage.write(key, file.getvalue())


def measure(case: Case, catalogue: Catalogue, storage: Storage) -> Measured:
    """Run a case within a budget that just admits its plan.

    Raises:
        RuntimeError: the job failed.
    """
    job = order(case, catalogue)
    draw(storage, case.size)
    ladder = climb(catalogue, job)
    planned = ladder[round(RUNGS[case.rung] * (len(ladder) - 1))]
    pool = Pool(catalogue, device="cpu", budget_bytes=int(planned.peak_bytes / PLANNED_SHARE) + 1)
    (result,) = jobs.generate([jobs.Job("peak", job, 0.0)], pool, storage, Nobody())
    if result.receipt is None:
        raise RuntimeError(result.error)
    memory = result.receipt.memory
    if memory is None or memory.peak_bytes is None:
        raise ValueError("nothing was measured")
    return Measured(planned, memory.plan, memory.peak_bytes)


def climb(catalogue: Catalogue, job: JobParameters) -> list[Plan]:
    """The plans that a job would step down through, from the fastest to the smallest."""
    budget = PlanSelector(catalogue, 2**50, lambda _: torch.float32.itemsize)
    if not budget.knows(job.model):
        raise ValueError(f"{job.model} is not on this machine")
    ladder = [budget.choose(job, job.num_images)]
    while budget.step_down(job, job.num_images):
        ladder.append(budget.choose(job, job.num_images))
    return ladder


def rows(catalogue: Catalogue, families: Sequence[str]) -> tuple[list[list[object]], list[Measured]]:
    """A line for each family and kind, over all numbers of images and sizes; and all that was measured."""
    table: list[list[object]] = []
    every: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        for family, kind in itertools.product(families, KINDS):
            line: list[object] = [family, kind]
            for rung in RUNGS:
                cases = [Case(family, kind, *call, rung) for call in itertools.product(IMAGES, SIZES)]
                found = [measure(case, catalogue, storage) for case in cases]
                every += found
                line.append(_range(found))
            table.append(line)
    return table, every


def _range(found: Sequence[Measured]) -> str:
    ratios = [one.ratio for one in found]
    return f"{min(ratios):.3f}–{max(ratios):.3f}" + ("" if all(one.holds for one in found) else " (!)")


def main() -> int:
    """Measure and print the table; returns the exit status."""
    parser = options(__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    with report("peaks"):
        table, every = rows(read_catalogue(BUILT_IN_CATALOGUE), arguments.families)
        print_table(["family", "job", *(f"{name} plan" for name in RUNGS)], table)
        ratios = [one.ratio for one in every]
        sizes = " and ".join(f"{width} × {height}" for width, height in SIZES)
        print(f"\nmeasured ÷ planned, over one and two images of {sizes};", end=" ")
        print(f"{len(ratios)} runs, {min(ratios):.3f}–{max(ratios):.3f}")
    return 0 if all(one.holds for one in every) else 1


if __name__ == "__main__":
    sys.exit(main())
