"""Measured against planned peaks of real runs: `python -m bench.peaks`.

The shapes models on the CPU, where a budget is enforced by counting every tensor
(`worker/runtime/memory_tracker.py`). Of the plans that an empty worker takes within just their bytes, each family,
kind of job, number of images and size runs on the fastest, the middle and the smallest. Bytes depend neither on
the machine nor on its load. Exits with 1 where a run took another plan than its budget was made for, or needed
over 1 % more than planned.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.diffusers_loop import compute_alike, make_inputs, to_png
from bench.report import options, print_table, report
from bench.trials import run_job
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.reader import read_catalogue
from contracts.memory.moves import Situation, cheapest, gives_same_image
from contracts.memory.plan import Plan
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from worker.pool.call_history import CallHistory
from worker.pool.plan_selector import PlanSelector
from worker.pool.pool import PLANNED_SHARE, Pool

#: Position among the candidates, from the fastest to the smallest.
POSITIONS = {"fastest": 0.0, "middle": 0.5, "smallest": 1.0}
#: Kind of job -> task, number of ControlNets, number of LoRAs.
KINDS = {
    "txt2img": (Task.TXT2IMG, 0, 0),
    "img2img": (Task.IMG2IMG, 0, 0),
    "inpaint": (Task.INPAINT, 0, 0),
    "controlnet": (Task.CONTROLNET, 1, 0),
    "two ControlNets": (Task.CONTROLNET, 2, 0),
    "LoRA": (Task.TXT2IMG, 0, 1),
    "two LoRAs": (Task.TXT2IMG, 0, 2),
}
IMAGE, MASK = "inputs/image.png", "inputs/mask.png"
_FAMILIES = ("sdxl", "sd3", "flux")
IMAGES, SIZES = (1, 2), ((128, 128), (256, 192))
#: How much of the plan a run may need beyond it.
TOLERANCE = 0.01
#: Two, because streamed weights are prefetched from the second step on.
_STEPS = 2


@dataclass(frozen=True)
class Case:
    """One job and the candidate plan that it runs on."""

    family: str
    kind: str
    images: int
    size: tuple[int, int]
    position: str


@dataclass(frozen=True)
class Measured:
    """The result of a case.

    Attributes:
        planned: the plan that the budget was made for.
        used: name of the plan that the job ran on.
    """

    planned: Plan
    used: str
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """Peak ÷ plan."""
        return self.peak_bytes / self.planned.peak_bytes

    @property
    def holds(self) -> bool:
        """Whether the job ran as planned."""
        return self.used == self.planned.name and self.ratio <= 1 + TOLERANCE


def job_of(case: Case, catalogue: Catalogue) -> JobParameters:
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
        keys["image"] = IMAGE
    if task is Task.INPAINT:
        fields["mask_image"], keys["mask_image"] = "-", MASK
    nets = [row.id for row in catalogue.controlnets if row.family == case.family][:controls]
    if nets:
        fields["controls"] = [{"controlnet": net, "image": "-"} for net in nets]
        keys |= {f"controls.{number}.image": IMAGE for number in range(controls)}
    fields["loras"] = [{"name": row.id} for row in catalogue.loras if row.family == case.family][:loras]
    request = REQUESTS[task].model_validate(fields)
    images = {field: StoredImage(key, width, height) for field, key in keys.items()}
    return resolve(request, check(request, catalogue), images)


def measure(case: Case, catalogue: Catalogue, storage: Storage) -> Measured:
    """Run a case within a budget that just admits its plan; raises JobFailed."""
    job = job_of(case, catalogue)
    for key, image in zip((IMAGE, MASK), make_inputs(*case.size), strict=True):
        storage.write(key, to_png(image))
    plans = taken_alone(candidates_of(catalogue, job))
    planned = plans[round(POSITIONS[case.position] * (len(plans) - 1))]
    pool = Pool(catalogue, device="cpu", budget_bytes=int(planned.peak_bytes / PLANNED_SHARE) + 1)
    memory = run_job(pool, job, storage).receipt.memory
    if memory is None or memory.peak_bytes is None:
        raise ValueError("nothing was measured")
    return Measured(planned, memory.plan, memory.peak_bytes)


def candidates_of(catalogue: Catalogue, job: JobParameters) -> list[Plan]:
    """The plans that a job would step down through, from the fastest to the smallest."""
    selector = PlanSelector(catalogue, 2**50, lambda _: 4)
    if not selector.knows(job.model):
        raise ValueError(f"{job.model} is not on this machine")
    plans = [selector.choose(job, job.num_images)]
    while selector.step_down(job, job.num_images):
        plans.append(selector.choose(job, job.num_images))
    return plans


def taken_alone(plans: Sequence[Plan]) -> list[Plan]:
    """Those that an empty worker takes within just their bytes; of two at one cost it takes what moves less."""
    calls = CallHistory().begin("", "")
    choices = ([one for one in plans[number:] if gives_same_image(one, best)] for number, best in enumerate(plans))
    return [few[0] for few in choices if cheapest(few, Situation(few[0].peak_bytes, calls=calls)) is few[0]]


def _range(found: Sequence[Measured]) -> str:
    ratios = [one.ratio for one in found]
    return f"{min(ratios):.3f}–{max(ratios):.3f}" + ("" if all(one.holds for one in found) else " (!)")


def main() -> int:
    """Measure and print the table; returns the exit status."""
    options(__doc__).parse_args()
    compute_alike()
    table: list[list[str]] = []
    every: list[Measured] = []
    with report("peaks"), tempfile.TemporaryDirectory() as folder:
        catalogue, storage = read_catalogue(BUILT_IN_CATALOGUE), LocalStorage(Path(folder))
        for family, kind in itertools.product(_FAMILIES, KINDS):
            table.append([family, kind])
            for position in POSITIONS:
                cases = [Case(family, kind, *call, position) for call in itertools.product(IMAGES, SIZES)]
                found = [measure(case, catalogue, storage) for case in cases]
                every += found
                table[-1].append(_range(found))
        print_table(["family", "job", *(f"{name} plan" for name in POSITIONS)], table)
        print(f"\nmeasured ÷ planned, one and two images of {SIZES}: {len(every)} runs, {_range(every)}")
    return 0 if all(one.holds for one in every) else 1


if __name__ == "__main__":
    sys.exit(main())
