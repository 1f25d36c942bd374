"""T5 on the CPU encodes prompts ahead of time, and every image has the same bytes as without."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import Mode
from contracts.memory.plan import Placement
from contracts.memory.policy import Policy
from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.adapters import checkpoint_of
from tests.support.combinations import usual_or_all
from tests.support.jobs import RecordingWatch, complete_job
from tests.support.jobs import make_job as make_full_job
from tests.support.weights import write_adapter
from worker.families import get_family
from worker.pool.pool import Pool

T5_FAMILIES = ["sd3", "flux"]


def order(catalogue: Catalogue, family: str, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    """A job of two steps, so that something can happen between them."""
    return make_full_job(catalogue, family, mode, **{"num_inference_steps": 2, **fields})


@pytest.fixture(scope="module")
def plain(adapted: Catalogue) -> Pool:
    """A pool with T5 on the CPU that encodes every prompt when its job needs it."""
    return Pool(adapted, device="cpu", policy=Policy(t5="cpu"), embedding_bytes=0)


def _open_pool(catalogue: Catalogue, **options: Any) -> Pool:
    return Pool(catalogue, device="cpu", policy=Policy(t5="cpu"), encodes_ahead=True, **options)


def _t5(pool: Pool, family: str) -> Any:
    return getattr(pool.model(f"shapes-{family}").base, get_family(family).t5 or "")


class LookaheadWatch(RecordingWatch):
    """A watch that encodes the prompts of waiting jobs in another thread while a job denoises."""

    def __init__(self, pool: Pool, *waiting: JobParameters) -> None:
        super().__init__()
        self.encoded: list[int] = []
        self._pool, self._waiting = pool, waiting
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        self.encoded.extend(self._pool.prompts_ahead.encode(job, lambda: True) for job in self._waiting)

    def step(self, step: int, steps: int) -> None:
        super().step(step, steps)
        if step == 1:
            self._thread.start()
        if step == steps:
            self._thread.join()


@pytest.fixture(scope="module")
def adapted(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """For each family with T5 an adapter that changes a text encoder, too."""
    folder, rows = tmp_path_factory.mktemp("adapters"), list(catalogue.loras)
    for family in T5_FAMILIES:
        path = folder / f"{family}.safetensors"
        write_adapter(path, family, checkpoint_of(catalogue, family), seed=2, text_encoder=True)
        rows.append(LoraSpec(id=f"{family}-text", family=family, source=str(path)))
    return catalogue.model_copy(update={"loras": tuple(rows)})


@pytest.mark.parametrize(("family", "dtype"), [("sd3", "float32"), ("flux", "bfloat16")])
def test_a_prompt_that_was_encoded_ahead_is_not_encoded_again(
    family: str, dtype: str, catalogue: Catalogue, storage: Storage
) -> None:
    rows = tuple(row.model_copy(update={"dtype": dtype}) for row in catalogue.models)
    typed, counters = catalogue.model_copy(update={"models": rows}), Counters()
    first, second = (
        order(typed, family, num_inference_steps=1, prompt=prompt)
        for prompt in ("a red circle", "a blue square on a white background")
    )
    without = Pool(typed, device="cpu", policy=Policy(t5="cpu"), embedding_bytes=0)
    expected = [complete_job(job, without, storage)[0] for job in (first, second)]
    pool, runs = _open_pool(typed, counters=counters), []
    watch = LookaheadWatch(pool, second)
    files, receipt = complete_job(first, pool, storage, watch)
    assert receipt.embeddings.ahead == 0
    hook = _t5(pool, family).register_forward_pre_hook(lambda *_: runs.append(1))
    again, receipt = complete_job(second, pool, storage)
    hook.remove()
    assert ([files, again], runs) == (expected, [])
    # The negative prompt of SD3 was the first job's, too, and is remembered as a whole.
    assert watch.encoded == [1]
    assert (receipt.embeddings.misses, receipt.embeddings.ahead) == (1, 1)
    figures = counters.drain()
    for row in ("prompts_encoded_ahead", "prompts_found_ahead"):
        assert figures[f'["{row}","","shapes-{family}"]'] == 1


@pytest.mark.parametrize("family", usual_or_all("flux", T5_FAMILIES))
def test_encoding_ahead_changes_no_byte_of_jobs_with_alternating_adapters(
    family: str, adapted: Catalogue, plain: Pool, storage: Storage
) -> None:
    """With and without adapters of either component, while T5 encodes a wrong guess and the next prompt."""
    chosen = [[f"{family}-text"], [f"{family}-lora"], [f"{family}-text", f"{family}-lora"], []]
    jobs = [
        order(
            adapted, family, prompt=f"{number} red circles", loras=[{"name": name} for name in names], seed=number
        )
        for number, names in enumerate(chosen)
    ]
    pool, found = _open_pool(adapted), []
    for job, waiting in zip(jobs, [*jobs[1:], jobs[0]], strict=True):
        wrong = waiting.model_copy(update={"prompt": f"not {waiting.prompt}"})
        files, receipt = complete_job(job, pool, storage, LookaheadWatch(pool, wrong, waiting))
        assert files == complete_job(job, plain, storage)[0], job.loras
        found.append(receipt.embeddings.ahead)
    assert found == [0, 1, 1, 1]


def test_a_failure_while_encoding_ahead_affects_no_job(
    catalogue: Catalogue, plain: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = order(catalogue, "flux"), order(catalogue, "flux", prompt="a blue square")
    expected = [complete_job(job, plain, storage)[0] for job in (first, second)]
    pool = _open_pool(catalogue)
    complete_job(first, pool, storage)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(_t5(pool, "flux"), "forward", fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            pool.prompts_ahead.encode(second, lambda: True)
    assert [complete_job(job, pool, storage)[0] for job in (first, second)] == expected


def test_a_t5_that_is_not_on_the_cpu_encodes_nothing_ahead(catalogue: Catalogue, storage: Storage) -> None:
    waiting = order(catalogue, "sd3", prompt="a blue square")
    visiting = Pool(catalogue, device="cpu", policy=Policy(t5="on_demand"), encodes_ahead=True)
    complete_job(order(catalogue, "sd3", num_inference_steps=1), visiting, storage)
    assert not visiting.prompts_ahead.is_possible
    parking = _open_pool(catalogue, max_models=1, host_bytes=2**30)
    complete_job(order(catalogue, "sd3", num_inference_steps=1), parking, storage)
    assert parking.prompts_ahead.is_possible
    parking.model("shapes-sdxl")
    assert parking.model("shapes-sdxl").placement.placement_of("text_encoder") is Placement.DEVICE
    assert parking.report()["in_host_memory"] == ["shapes-sd3"]
    assert not parking.prompts_ahead.is_possible
    for pool in (visiting, parking, Pool(catalogue, device="cpu")):
        assert pool.prompts_ahead.encode(waiting, lambda: True) == 0


@pytest.fixture(scope="module")
def warm(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool that has run a job of SD3, and can encode its prompts ahead."""
    pool, storage = _open_pool(catalogue), LocalStorage(tmp_path_factory.mktemp("warm"))
    complete_job(order(catalogue, "sd3", num_inference_steps=1), pool, storage)
    return pool


def test_encoding_ahead_stops_between_texts_when_told(catalogue: Catalogue, warm: Pool) -> None:
    waiting = order(catalogue, "sd3", prompt="a blue square", negative_prompt="a green triangle")
    answers = iter([True, False])
    assert warm.prompts_ahead.encode(waiting, lambda: next(answers)) == 1
    # The second time it is known already.
    assert warm.prompts_ahead.encode(waiting, lambda: True) == 1


def test_a_prompt_of_t5s_own_is_the_one_that_is_encoded(
    catalogue: Catalogue, warm: Pool, storage: Storage
) -> None:
    waiting = order(catalogue, "sd3", Mode.IMG2IMG, prompt="a red ring", prompt_3="a yellow triangle", clip_skip=1)
    assert warm.prompts_ahead.encode(waiting, lambda: True) == 1
    assert complete_job(waiting, warm, storage)[1].embeddings.ahead == 1
