"""Control images of models as jobs: what they made, in which size, and what made it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.networks import PreprocessorSpec
from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.requests.task_parameters import JobTask
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.weights.preprocessor_models import read_preprocessor
from tests.support.images import encode_image
from tests.support.preprocessor_models import photo, write_dpt, write_segformer, write_vitpose
from tests.support.workers import make_consumer, only, work_until_ended
from worker.pool.pool import Pool
from worker.preprocessors.maps import ControlMap, on_white

CPU = torch.device("cpu")


def test_a_control_image_of_each_kind_is_a_job_that_says_what_made_it(
    settings: SharedSettings, queue: JobQueue, catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    folders = {
        "depth": write_dpt(tmp_path / "depth"),
        "segmentation": write_segformer(tmp_path / "segmentation"),
        "pose": write_vitpose(tmp_path / "pose"),
    }
    rows = tuple(PreprocessorSpec(id=kind, source=str(folder), kind=kind) for kind, folder in folders.items())
    image = photo((120, 80))
    storage.write("inputs/photo.png", encode_image(image))
    pool = Pool(only(catalogue, "sdxl").model_copy(update={"preprocessors": rows}), device="cpu")
    options = {"resolution": 40, "confidence": 0.0}
    ids = [
        queue.submit(
            PreprocessParameters(
                task=JobTask.PREPROCESS, model=row.id, preprocess=row.id, preprocess_options=options,
                image="inputs/photo.png", width=60, height=40,
            )
        ).id
        for row in rows
    ]  # fmt: skip
    for row, record in zip(
        rows, work_until_ended(make_consumer(settings, pool, storage), queue, *ids), strict=True
    ):
        assert (record.state, record.progress.step, record.progress.steps) == (JobState.COMPLETED, 1, 1)
        made = np.asarray(Image.open(io.BytesIO(storage.read(record.images[0].key))))
        control = ControlMap(folders[row.kind], row.kind, on_white(image, (60, 40)), options)
        control.load(CPU)
        assert np.array_equal(made, np.asarray(control.make()))
        assert made.any()
        assert record.receipt is not None
        assert record.receipt.model.id == row.id
        assert record.receipt.memory.planned_bytes > read_preprocessor(folders[row.kind], row.kind).values * 4

    processor = folders["depth"] / "preprocessor_config.json"
    before = pool.fetcher.network("preprocessor:depth")[1].sha256
    processor.write_text(processor.read_text(encoding="utf-8").replace("32", "40"), encoding="utf-8")
    assert pool.fetcher.network("preprocessor:depth")[1].sha256 != before
