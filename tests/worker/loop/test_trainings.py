"""Trainings on the queue: beside images, interrupted, continued elsewhere, and what becomes of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.events import read_events
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.prompts.inversions import with_inversions
from contracts.requests.schema import ControlNetRequest, Priority, Txt2ImgRequest
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.parameters import ResumedTraining, TrainingImage, TrainingParameters
from contracts.requests.training.settings import TrainingSettings
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.uploads.adapters import CONTROLNETS, INVERSIONS, LORAS, UploadRegistry, resolve_uploads
from contracts.uploads.owner_bytes import OwnerBytes
from contracts.uploads.retention import Retention
from tests.support.parameters import parameters
from tests.support.workers import make_consumer, send_sigterm, work_until_ended
from worker.adapters.files import LoraFiles
from worker.loop import claimer
from worker.loop.progress import JobWatch
from worker.pool.pool import Pool

STEPS = 3
SETTINGS = {"rank": 2, "alpha": 2, "steps": STEPS, "learning_rate": 1e-3, "resolution": 64, "seed": 5}


def train(
    queue: JobQueue, storage: Storage, name: str, settings: Mapping[str, Any] | None = None, **changes: Any
) -> JobRecord:
    """A training of this name, which waits."""
    for key, colour in (("inputs/a.png", "red"), ("inputs/b.png", "blue")):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(file, "PNG")
        storage.write(key, file.getvalue())
    fields: dict[str, Any] = {
        "images": (
            TrainingImage(image="inputs/a.png", caption="a red thing"),
            TrainingImage(image="inputs/b.png", caption="a blue thing"),
        ),
        "snapshot_every_steps": STEPS,
        "checkpoint_every_steps": 1,
        **changes,
    }
    training = TrainingParameters(
        task=JobTask.TRAINING,
        model="shapes-sdxl",
        name=name,
        settings=TrainingSettings(**{**SETTINGS, **(settings or {})}),
        sample=parameters(num_inference_steps=1, batchable=False),
        **fields,
    )
    return queue.submit(training, priority=Priority.TRAINING, owner="ann")


@contextmanager
def after_training_steps(act: Callable[[str, int], object]) -> Iterator[None]:
    """While the block runs, do something in the worker's thread after each step of each training."""
    report = JobWatch.train_step

    def step_and_act(watch: JobWatch, step: int, steps: int, loss: float | None) -> None:
        report(watch, step, steps, loss)
        act(watch.claim.job.id, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobWatch, "train_step", step_and_act)
        yield


def lora_of(record: JobRecord) -> str:
    """The hash of the LoRA that a training has made."""
    assert record.state is JobState.COMPLETED, record.error
    assert record.receipt is not None
    assert record.receipt.training is not None
    return record.receipt.training.loras[-1].sha256


@pytest.fixture
def registry(settings: SharedSettings, storage: Storage) -> Iterator[UploadRegistry]:
    connection = connect(settings.redis_url, timeout_seconds=5, retries=0)
    yield UploadRegistry(connection, storage, Retention(connection, storage, gone_seconds=60))
    connection.close()


def test_a_training_makes_way_for_images_and_goes_on_from_its_checkpoint_bit_for_bit(
    settings: SharedSettings,
    queue: JobQueue,
    catalogue: Catalogue,
    storage: Storage,
    registry: UploadRegistry,
    tmp_path: Path,
) -> None:
    pool = Pool(catalogue, device="cpu", lora_files=LoraFiles(catalogue, storage, tmp_path / "loras"))
    more: dict[str, Any] = {"class_prompt": "a thing", "class_images": 1}
    first = train(queue, storage, "whole", snapshot_every_steps=2, sample_prompts=("a red thing",), **more)
    images: list[str] = []

    def ask_for_an_image(id: str, step: int) -> None:
        if id == first.id and step == 1:
            images.append(queue.submit(parameters(num_inference_steps=2, seed=1)).id)

    consumer = make_consumer(settings, pool, storage, poll_seconds=0.001)
    with after_training_steps(ask_for_an_image):
        (whole,) = work_until_ended(consumer, queue, first.id)
    (image,) = (queue.fetch(id) for id in images)
    assert image.finished_at is not None
    assert whole.finished_at is not None
    assert image.finished_at < whole.finished_at
    assert len(whole.images) == 1
    rows = {row.id: row for row in registry.find_all(LORAS, "ann")}
    assert sorted(rows) == ["whole", "whole-step2"]
    assert rows["whole"].sha256 == lora_of(whole)
    assert registry.find_all(LORAS, "bob") == []
    kinds = [event.kind for event in read_events(registry._connection, first.id)]
    assert kinds.count("preview") == 2

    again = train(queue, storage, "again", **more)
    with after_training_steps(lambda _, step: send_sigterm() if step == 2 else None):
        make_consumer(settings, pool, storage).start([])
    waiting = queue.fetch(again.id)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)
    steps: list[int] = []
    with after_training_steps(lambda _, step: steps.append(step)):
        (rest,) = work_until_ended(make_consumer(settings, pool, storage), queue, again.id)
    assert steps == [2, 3]  # where it goes on, and what was left
    assert lora_of(rest) == lora_of(whole)

    lora = LoraParameters(name="whole", key=rows["whole"].source, sha256=rows["whole"].sha256, values=1)
    use = queue.submit(parameters(num_inference_steps=1, loras=(lora,)), owner="ann")
    (used,) = work_until_ended(make_consumer(settings, pool, storage), queue, use.id)
    assert used.receipt is not None
    assert [weights.sha256 for weights in used.receipt.loras] == [lora_of(whole)]


def test_a_textual_inversion_is_trained_and_used_by_its_word(
    settings: SharedSettings,
    queue: JobQueue,
    catalogue: Catalogue,
    storage: Storage,
    registry: UploadRegistry,
    tmp_path: Path,
) -> None:
    pool = Pool(catalogue, device="cpu", lora_files=LoraFiles(catalogue, storage, tmp_path / "loras"))
    image = TrainingImage(image="inputs/a.png", caption="a blob thing")
    trained = {"kind": "textual_inversion", "vectors": 2, "initial_text": "red", "steps": 2}
    record = train(
        queue, storage, "blob", trained, images=(image,), sample_prompts=("a blob",), snapshot_every_steps=1
    )
    (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, record.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert len(ended.images) == 1
    assert ended.receipt is not None
    assert ended.receipt.training is not None
    assert ended.receipt.training.loras == []
    assert [one.id for one in ended.receipt.training.textual_inversions] == ["blob-step1", "blob"]
    rows = {row.id: row for row in registry.find_all(INVERSIONS, "ann")}
    assert rows["blob-step1"].words == ("blob-step1", "blob")
    assert registry.find_all(LORAS, "ann") == []
    assert registry.find_all(INVERSIONS, "bob") == []

    extended = registry.extend(catalogue, "ann")
    model = extended.model("shapes-sdxl")
    request = Txt2ImgRequest(prompt="a blob", textual_inversions=[{"name": "blob"}], seed=1, num_inference_steps=1)
    job = resolve_uploads(with_inversions(resolve(request, model, {}), model, extended), extended)
    use = queue.submit(job, owner="ann")
    (used,) = work_until_ended(make_consumer(settings, pool, storage), queue, use.id)
    assert used.receipt is not None
    assert [one.sha256 for one in used.receipt.textual_inversions] == [rows["blob"].sha256]


def test_a_controlnet_is_trained_from_pairs_goes_on_elsewhere_and_is_used(
    settings: SharedSettings,
    queue: JobQueue,
    catalogue: Catalogue,
    storage: Storage,
    registry: UploadRegistry,
    tmp_path: Path,
) -> None:
    pool = Pool(catalogue, device="cpu", lora_files=LoraFiles(catalogue, storage, tmp_path / "uploads"))
    pair = TrainingImage(image="inputs/a.png", conditioning_image="inputs/control.png", caption="a red thing")
    trained = {"kind": "controlnet", "steps": 2, "learning_rate": 0.01}
    record = train(
        queue, storage, "outline", trained, images=(pair,), sample_prompts=("a red thing",), snapshot_every_steps=2
    )
    with after_training_steps(lambda _, step: send_sigterm() if step == 1 else None):
        make_consumer(settings, pool, storage).start([])
    steps: list[int] = []
    with after_training_steps(lambda _, step: steps.append(step)):
        (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, record.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert steps == [1, 2]  # where it goes on, and what was left
    assert len(ended.images) == 1
    assert ended.receipt is not None
    assert ended.receipt.training is not None
    (row,) = registry.find_all(CONTROLNETS, "ann")
    assert [(one.id, one.sha256) for one in ended.receipt.training.controlnets] == [("outline", row.sha256)]
    assert row.models == ("shapes-sdxl",)
    assert registry.find_all(CONTROLNETS, "bob") == []

    extended = registry.extend(catalogue, "ann")
    images = {"controls.0.image": StoredImage("inputs/control.png", 64, 64)}
    fields: dict[str, Any] = {"prompt": "a thing", "model": "shapes-sdxl", "seed": 1, "num_inference_steps": 1}
    request = ControlNetRequest(controls=[{"controlnet": "outline", "image": "upload:x"}], **fields)
    job = resolve_uploads(resolve(request, extended.model("shapes-sdxl"), images), extended)
    assert "controlnet:outline" not in job.needs
    assert row.source in job.inputs
    use = queue.submit(job, owner="ann")
    (used,) = work_until_ended(make_consumer(settings, pool, storage), queue, use.id)
    assert used.receipt is not None, used.error
    assert [(one.id, one.sha256) for one in used.receipt.controlnets] == [("outline", row.sha256)]

    model = pool.model("shapes-sdxl")
    (loaded,) = (name for name in model.placement.names if "outline" in name)
    files = LoraFiles(catalogue, storage, tmp_path / "uploads")
    (control,) = job.controls
    for copy in ("b", "c"):  # others of the same content
        other = control.model_copy(update={"controlnet": copy})
        model.load_controlnet(other, files.locate(other, "controlnet"))
    model.drop_uploaded([control])
    assert loaded in model.placement.names
    model.drop_uploaded([])
    assert loaded not in model.placement.names


def test_a_cancelled_training_leaves_no_lora_and_a_later_one_goes_on_with_it_to_the_same_file(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, registry: UploadRegistry
) -> None:
    record = train(queue, storage, "unwanted", checkpoint_every_steps=50)
    with after_training_steps(lambda id, step: queue.cancel(id) if step == 1 else None):
        consumer = make_consumer(settings, pool, storage, report_seconds=0)
        (ended,) = work_until_ended(consumer, queue, record.id)
    assert ended.state is JobState.CANCELLED
    assert registry.find_all(LORAS, "ann") == []
    assert ended.checkpoint is not None
    done = ended.checkpoint.progress.step
    assert OwnerBytes(queue.connection).total("ann") == len(storage.read(ended.checkpoint.key))

    resumed = ResumedTraining(id=record.id, checkpoint=ended.checkpoint.key, step=done)
    later = train(queue, storage, "later", {"steps": 4}, resumed=resumed, snapshot_every_steps=4)
    whole = train(queue, storage, "whole", {"steps": 4}, snapshot_every_steps=4)
    steps: list[int] = []
    with after_training_steps(lambda id, step: steps.append(step) if id == later.id else None):
        both = work_until_ended(make_consumer(settings, pool, storage), queue, later.id, whole.id)
    assert steps == list(range(done, 5))  # where it goes on, and what was left
    assert lora_of(both[0]) == lora_of(both[1])
    assert [len(one.receipt.training.loras) for one in both if one.receipt and one.receipt.training] == [1, 1]

    other = train(queue, storage, "other", {"seed": 6}, resumed=resumed)
    (failed,) = work_until_ended(make_consumer(settings, pool, storage), queue, other.id)
    assert failed.error is not None
    assert (
        f"the checkpoint of training {record.id} is missing, damaged, or from other weights"
    ) in failed.error.message


def test_a_training_whose_image_is_gone_fails_and_says_so(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    record = train(queue, storage, "incomplete")
    storage.delete("inputs/b.png")
    (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, record.id)
    assert ended.error is not None
    assert "no longer stored" in ended.error.message


def test_a_worker_without_its_optimizer_leaves_a_training_to_others(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer, "available_optimizers", frozenset)
    passed_over = train(queue, storage, "small", {"steps": 1, "optimizer": "adamw8bit"})
    taken = train(queue, storage, "usual", {"steps": 1})
    (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, taken.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert queue.fetch(passed_over.id).state is JobState.QUEUED


@pytest.mark.parametrize(("training", "claims_image"), [("never", True), ("only", False)])
def test_a_worker_trains_as_its_setting_says(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, training: str, *, claims_image: bool
) -> None:
    image = queue.submit(parameters(num_inference_steps=1))
    record = train(queue, storage, "perhaps", {"steps": 1})
    consumer = make_consumer(settings, pool, storage, training=training)
    work_until_ended(consumer, queue, image.id if claims_image else record.id)
    assert (queue.fetch(image.id).state is JobState.COMPLETED) == claims_image
    assert (queue.fetch(record.id).state is JobState.COMPLETED) != claims_image
