"""Images generated under plans that change their bytes still show what was asked for.

Plans that only move weights give the same bytes (`test_placement.py`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.receipt import Receipt
from contracts.memory.plan import Placement
from contracts.memory.policy import Policy
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from models.judge import Verdict, judge
from tests.support.combinations import ALL, covering
from tests.support.jobs import make_job, run_jobs
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool

#: colour, shape, background
SCENES = [
    ("red", "circle", "blue"),
    ("yellow", "star", "purple"),
    ("green", "square", "white"),
    ("purple", "square", "yellow"),
]
if not ALL:  # two, which share no word
    SCENES = SCENES[:2]
#: What a receipt says -> how the plan differs, and a width at which that shows.
DEPARTURES: dict[str, tuple[dict[str, Any], int]] = {
    "VAE in tiles of 64 pixels": ({"tile_side": 64}, 96),
    "denoiser in fp8": ({"fp8": True}, 64),
}


def _orders(catalogue: Catalogue, family: str, width: int = 64) -> list[JobParameters]:
    """A job for each scene."""
    fields: dict[str, Any] = {"num_inference_steps": 12, "width": width, "height": 64}
    return [
        make_job(catalogue, family, prompt="a large {} {} on a {} background".format(*scene), seed=seed, **fields)
        for seed, scene in enumerate(SCENES)
    ]


def _judged(jobs: Sequence[JobParameters], pool: Pool, storage: Storage) -> tuple[list[Verdict], Receipt]:
    """Verdicts on jobs that run together, and the receipt of the first."""
    outcomes = [one for one in run_jobs(jobs, pool, storage) if one.status == "completed"]
    assert len(outcomes) == len(jobs)
    files = [storage.read(one.stored[0].key) for one in outcomes]
    return [judge(Image.open(io.BytesIO(file)).convert("RGB")) for file in files], outcomes[0].receipt


def _words(verdicts: Sequence[Verdict]) -> list[tuple[str, str, str]]:
    return [(one.colour, one.shape, one.background) for one in verdicts]


@pytest.mark.parametrize(("family", "departure"), covering([*product(TRAINED_FAMILIES, DEPARTURES)]))
def test_tiles_and_8_bits_show_what_was_asked_for(
    family: str,
    departure: str,
    shipped: Catalogue,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, width = DEPARTURES[departure]
    pool, jobs = Pool(shipped, device="cpu"), _orders(shipped, family, width=width)
    assert pool.plan_selector.knows(jobs[0].model)
    changed = pool.plan_selector.choose(jobs[0], len(jobs)).model_copy(update=change)
    monkeypatch.setattr(pool.plan_selector, "choose", lambda *_: changed)
    verdicts, receipt = _judged(jobs, pool, storage)
    assert receipt.deviations == [departure]
    assert _words(verdicts) == SCENES


@pytest.mark.parametrize("family", ["sd3", *(["flux"] if ALL else [])])
def test_a_small_worker_in_bfloat16_with_t5_on_the_cpu_in_float32_shows_what_was_asked_for(
    family: str, shipped: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoders visit, the denoiser is streamed, T5's results come in another dtype than it computes in."""
    monkeypatch.setattr("worker.offload.offloaded_module.cpu_has_bfloat16", lambda: False)
    rows = tuple(row.model_copy(update={"dtype": "bfloat16"}) for row in shipped.models)
    narrow = shipped.model_copy(update={"models": rows})
    pool = Pool(narrow, device="cpu", budget_bytes=2**30, policy=Policy(t5="cpu"))
    jobs = _orders(narrow, family)[: len(SCENES) if ALL else 1]  # many CPUs are slow in bfloat16
    assert pool.plan_selector.knows(jobs[0].model)
    while pool.plan_selector.step_down(jobs[0], len(jobs)):
        pass
    smallest = pool.plan_selector.choose(jobs[0], len(jobs))
    monkeypatch.setattr(pool.plan_selector, "choose", lambda *_: smallest)
    verdicts, receipt = _judged(jobs, pool, storage)
    assert receipt.dtype == "bfloat16"
    assert {Placement.CPU, Placement.ON_DEMAND, Placement.STREAMED} <= set(receipt.placement.values())
    assert _words(verdicts) == SCENES[: len(jobs)]


def test_without_t5_sd3_shows_what_is_in_the_middle(shipped: Catalogue, storage: Storage) -> None:
    """That it no longer knows places, `tests/models/quality/test_checkpoints.py` shows."""
    pool = Pool(shipped, device="cpu", policy=Policy(t5="off"))
    verdicts, receipt = _judged(_orders(shipped, "sd3"), pool, storage)
    assert receipt.deviations == ["text_encoder_3 skipped"]
    assert _words(verdicts) == SCENES
