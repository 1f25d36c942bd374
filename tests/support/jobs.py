"""Jobs for the worker's tests, which pass the real validation, and running them on a pool."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode, Task, task_of
from contracts.jobs.events import Preview
from contracts.jobs.receipt import Receipt
from contracts.jobs.records import JobError
from contracts.requests.checks.control_maps import with_map_options
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.inversions import with_inversions
from contracts.requests.schema import REQUESTS
from contracts.storage import Storage
from worker.engine.costs import CallCosts
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.engine.policy import Policy, Waiting
from worker.generation.generate import JobGeneration
from worker.generation.results.outputs import JobResult, store
from worker.pool.pool import Pool

Pixels = npt.NDArray[np.int16]

SIDE = 64


def _circle(background: str, colour: str) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), background)
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=colour)
    return image


def _square() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((20, 20, 43, 43), fill=255)
    return mask


#: Storage key -> image.
INPUT_IMAGES = {
    "inputs/image.png": _circle("blue", "red"),
    "inputs/mask.png": _square(),
    "inputs/control.png": _circle("black", "white"),
    "inputs/reference.png": _circle("green", "yellow").resize((96, 64)),
}


def model_of(catalogue: Catalogue, family: str) -> str:
    """The family's small model, or that of its other checkpoints."""
    return next(row.id for row in catalogue.models if row.family_spec.id == family)


def make_job(
    catalogue: Catalogue,
    family: str,
    mode: Mode = Mode.TXT2IMG,
    controls: int = 1,
    control_fields: Any = MappingProxyType({}),
    **fields: Any,
) -> JobParameters:
    """Parameters of a job that passed validation, with the images that its mode needs.

    Args:
        control_fields: more fields of each of its controls; or a list with those of one after the other.
    """
    task = task_of(mode)
    model = catalogue.model(model_of(catalogue, family))
    subject = model.family_spec.any_subject("a red circle")
    fields = {**subject, "num_inference_steps": 2, "seed": 7, "model": model.id, **fields}
    images: dict[str, StoredImage] = {}
    allowed = model.family_spec.modes[mode]
    for field, key in (
        ("image", "inputs/image.png"),
        ("mask_image", "inputs/mask.png"),
        ("control_image", "inputs/control.png"),
    ):
        if field in allowed:
            fields.setdefault(field, "upload:x")
            images[field] = StoredImage(key, SIDE, SIDE)
    if task is Task.CONTROLNET and "controls" not in fields:
        several = control_fields if isinstance(control_fields, list) else [control_fields] * controls
        fields["controls"] = [{**_control(family, mode), **own} for own in several]
    for index, control in enumerate(fields.get("controls", ())):
        if "image" in control:
            images[f"controls.{index}.image"] = StoredImage("inputs/control.png", SIDE, SIDE)
    if "strength" not in allowed:
        fields.pop("strength", None)
    if task is Task.EDIT:
        fields.setdefault("references", ["upload:x"])
    for index, _ in enumerate(fields.get("references", ())):
        images[f"references.{index}"] = StoredImage(
            "inputs/reference.png", *INPUT_IMAGES["inputs/reference.png"].size
        )
    for number, adapter in enumerate(fields.get("ip_adapters", ())):
        for index, key in enumerate(adapter["images"]):
            images[f"ip_adapters.{number}.images.{index}"] = StoredImage(key, SIDE, SIDE)
        if "mask" in adapter:
            images[f"ip_adapters.{number}.mask"] = StoredImage(adapter["mask"], SIDE, SIDE)
    request = REQUESTS[task](**fields)
    check(request, catalogue)
    return with_map_options(with_inversions(resolve(request, model, images), model, catalogue), catalogue, images)


def _control(family: str, mode: Mode) -> dict[str, Any]:
    if mode is Mode.CONTROLNET_INPAINT and FAMILIES[family].inpaint_control_only:
        return {"controlnet": f"{family}-mask"}
    return {"controlnet": f"{family}-hint", "image": "upload:x"}


class JobStopped(BaseException):
    """What a test has thrown into its jobs."""


class RecordingWatch:
    """A watch that records steps and previews, and has `error` thrown into the jobs after step `stop_after`."""

    def __init__(self, stop_after: int | None = None, error: BaseException | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.previews: list[tuple[str, Preview]] = []
        self.reason: BaseException | None = None
        self._stop_after, self._error = stop_after, error

    def step(self, step: int, steps: int) -> None:
        self.seen.append((step, steps))
        if step == self._stop_after:
            self.reason = self._error

    def preview(self, job_id: str, preview: Preview) -> None:
        self.previews.append((job_id, preview))


class _JobWatch:
    """One job's part of a watch for several."""

    def __init__(self, watch: RecordingWatch, job_id: str) -> None:
        self._watch, self._job_id = watch, job_id

    def step(self, step: int, steps: int) -> None:
        self._watch.step(step, steps)

    def preview(self, preview: Preview) -> None:
        self._watch.preview(self._job_id, preview)


class JoinAll:
    """Serves jobs in turn, and joins all calls that can be: nothing depends on how long calls take."""

    def choose(
        self,
        waiting: Sequence[Waiting],
        costs: CallCosts,  # the interface's, as the last one
        max_rows: int,
        buckets: Sequence[int] | None = None,
    ) -> list[Waiting]:
        """The call that was served least recently, and all that fit in with it."""
        first, *others = sorted(waiting, key=lambda call: call.last_served)
        group, additions = [first], first.additions
        for call in others:
            together = [*group, call]
            fits = sum(one.rows for one in together) <= max_rows and sum(one.images for one in together) <= min(
                one.max_images for one in together
            )
            can_add = None in (additions, call.additions) or additions == call.additions
            if fits and can_add and call.key is not None and call.key == first.key:
                group.append(call)
                additions = additions or call.additions
        return group

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        """Nothing to remember."""


def start_jobs(
    parameters: Sequence[JobParameters],
    engine: Engine,
    pool: Pool,
    storage: Storage,
    watch: RecordingWatch | None = None,
    owners: Sequence[str] = (),
    name: str = "job",
    tier: int = 1,
) -> list[JobInFlight]:
    """Start jobs on an engine; those that are not `batchable` are exact.

    Args:
        owners: of the jobs; empty: one owner's.
        name: their ids begin with it.
        tier: of all of them.
    """
    seen = watch or RecordingWatch()

    def start(job: Job) -> JobInFlight:
        def work(flight: JobInFlight) -> JobResult:
            own = _JobWatch(seen, job.id)
            return JobGeneration(flight, engine, pool, storage, own, worker_name="tester").run()

        return engine.start(job, work, lambda: seen.reason)

    return [
        start(Job(f"{name}{index}", item, 0.5, owner, tier, exact=not item.batchable))
        for index, (item, owner) in enumerate(zip(parameters, owners or [""] * len(parameters), strict=True))
    ]


def run_jobs(
    parameters: JobParameters | Sequence[JobParameters],
    pool: Pool,
    storage: Storage,
    watch: RecordingWatch | None = None,
    policy: Policy | None = None,
    owners: Sequence[str] = (),
) -> list[Any]:
    """Run jobs together on one engine and store their images; returns their results, or raises a job's error.

    Args:
        policy: None: all calls are joined that can be.
        owners: of the jobs; empty: one owner's.
    """
    jobs = [parameters] if isinstance(parameters, JobParameters) else parameters
    engine = Engine(pool, policy or JoinAll())
    try:
        flights = start_jobs(jobs, engine, pool, storage, watch, owners)
        while engine.jobs:
            engine.tick()
    finally:
        engine.close()
    return [store_result(flight, storage) for flight in flights]


def store_result(flight: JobInFlight, storage: Storage) -> Any:
    """Store the images of a job that has ended; returns its result, or raises its error."""
    if flight.coroutine.error is not None:
        raise flight.coroutine.error
    result = flight.result
    return store(result, flight.job.id, 0, storage) if result.status == "generated" else result


def complete_job(
    parameters: JobParameters, pool: Pool, storage: Storage, watch: RecordingWatch | None = None
) -> tuple[list[bytes], Receipt]:
    """Run a job that must complete; returns its files and its receipt."""
    (result,) = run_jobs(parameters, pool, storage, watch)
    assert result.status == "completed", result
    return [storage.read(image.key) for image in result.stored], result.receipt


def fail_job(parameters: JobParameters, pool: Pool, storage: Storage) -> JobError:
    """Run a job that must fail; returns its error."""
    (result,) = run_jobs(parameters, pool, storage)
    assert result.status == "failed", result
    error: JobError = result.error
    return error


def generate_pixels(parameters: JobParameters, pool: Pool, storage: Storage) -> Pixels:
    """Run a job that must complete; returns its first image: height × width × 3, 0–255."""
    return decode_pixels(complete_job(parameters, pool, storage)[0][0])


def decode_pixels(file: bytes) -> Pixels:
    """Decode an image file: height × width × 3, 0–255."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=np.int16)
