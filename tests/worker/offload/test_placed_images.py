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
from contracts.memory.plan import Placement, Policy
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
PLACES = ["left", "right", "top", "bottom"]
#: What a receipt says -> how the plan differs, and a width at which that shows.
DEPARTURES: dict[str, tuple[dict[str, Any], int]] = {
    "VAE in tiles of 64 pixels": ({"tile_side": 64}, 96),
    "denoiser in fp8": ({"fp8": True}, 64),
}


CENTRED, PLACED = "a large {0} {1} on a {2} background", "a {0} {1} at the {3} on a {2} background"


def _orders(catalogue: Catalogue, family: str, prompt: str = CENTRED, width: int = 64) -> list[JobParameters]:
    """A job for each scene; `prompt` has places for colour, shape, background and its number's own place."""
    fields: dict[str, Any] = {"num_inference_steps": 12, "width": width, "height": 64}
    return [
        make_job(catalogue, family, prompt=prompt.format(*scene, PLACES[seed]), seed=seed, **fields)
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
    catalogue: Catalogue,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change, width = DEPARTURES[departure]
    pool, jobs = Pool(catalogue, device="cpu"), _orders(catalogue, family, width=width)
    assert pool.plan_selector.knows(jobs[0].model)
    changed = pool.plan_selector.choose(jobs[0], len(jobs)).model_copy(update=change)
    monkeypatch.setattr(pool.plan_selector, "choose", lambda *_: changed)
    verdicts, receipt = _judged(jobs, pool, storage)
    assert receipt.deviations == [departure]
    assert _words(verdicts) == SCENES


@pytest.mark.parametrize("family", ["sd3", *(["flux"] if ALL else [])])
def test_a_small_worker_in_bfloat16_with_t5_on_the_cpu_in_float32_shows_what_was_asked_for(
    family: str, catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoders visit, the denoiser is streamed, T5's results come in another dtype than it computes in."""
    monkeypatch.setattr("worker.offload.offloaded_module.cpu_has_bfloat16", lambda: False)
    rows = tuple(row.model_copy(update={"dtype": "bfloat16"}) for row in catalogue.models)
    narrow = catalogue.model_copy(update={"models": rows})
    pool = Pool(narrow, device="cpu", budget_bytes=2**30, policy=Policy(t5="cpu"))
    jobs = _orders(narrow, family)
    assert pool.plan_selector.knows(jobs[0].model)
    while pool.plan_selector.step_down(jobs[0], len(jobs)):
        pass
    smallest = pool.plan_selector.choose(jobs[0], len(jobs))
    monkeypatch.setattr(pool.plan_selector, "choose", lambda *_: smallest)
    verdicts, receipt = _judged(jobs, pool, storage)
    assert receipt.dtype == "bfloat16"
    assert {Placement.CPU, Placement.ON_DEMAND, Placement.STREAMED} <= set(receipt.placement.values())
    assert _words(verdicts) == SCENES


def test_without_t5_sd3_loses_places_and_what_is_in_the_middle_stays_right(
    catalogue: Catalogue, storage: Storage
) -> None:
    """As its card says: its CLIPs cannot see where a shape should be."""
    whole, blind = (Pool(catalogue, device="cpu", policy=Policy(t5=t5)) for t5 in ("gpu", "off"))
    verdicts, receipt = _judged(_orders(catalogue, "sd3"), blind, storage)
    assert receipt.deviations == ["text_encoder_3 skipped"]
    assert _words(verdicts) == SCENES
    placed = _orders(catalogue, "sd3", PLACED)
    assert [one.position for one in _judged(placed, whole, storage)[0]] == PLACES
    found = [one.position for one in _judged(placed, blind, storage)[0]]
    assert sum(one == place for one, place in zip(found, PLACES, strict=True)) <= 2
