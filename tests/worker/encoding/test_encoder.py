"""Prompts are encoded before the pipeline call with the same bits, once, and cached within a budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.receipt import CacheUse
from contracts.storage import Storage
from tests.support.jobs import complete_job, generate_pixels, make_job, run_jobs
from tests.support.trained import TRAINED_FAMILIES
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import Embedding, EmbeddingCache
from worker.encoding.encoder import PromptEncoder
from worker.families.inputs import GenerationInputs
from worker.pool.model import LoadedModel
from worker.pool.pipelines import derive
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)

TEXTS: list[tuple[str, dict[str, Any]]] = [
    ("sdxl", {}),
    ("sdxl", {"negative_prompt": "a blue square"}),
    ("sdxl", {"negative_prompt": "", "prompt_2": "a green triangle", "clip_skip": 1}),
    ("sdxl", {"guidance_scale": 1.0}),
    ("sd15", {"negative_prompt": "a blue square", "scheduler": "pndm"}),
    ("sd15", {"clip_skip": 1, "scheduler": "pndm"}),
    ("sd3", {}),
    ("sd3", {"negative_prompt": "a blue square", "prompt_2": "a green", "prompt_3": "a triangle", "clip_skip": 1}),
    ("sd3", {"max_sequence_length": 32, "guidance_scale": 1.0}),
    ("flux", {}),
    ("flux", {"prompt_2": "a green triangle", "max_sequence_length": 32}),
    ("flux", {"true_cfg_scale": 3.0, "negative_prompt": "a blue square"}),
    # The same text is read in two ways.
    ("lumina2", {"prompt": "a red circle", "negative_prompt": "a red circle", "max_sequence_length": 256}),
]


@pytest.fixture(scope="module")
def uncached(catalogue: Catalogue) -> Pool:
    """A pool that encodes every prompt."""
    return Pool(catalogue, device="cpu", embedding_bytes=0)


def _encoder(model: LoadedModel, cache: EmbeddingCache | None = None) -> PromptEncoder:
    return PromptEncoder(
        model.base,
        model.family,
        model.device,
        model.dtype,
        cache or EmbeddingCache(2**20),
        (),
        AdapterSet(),
        model.adapters.active_in_text_encoders,
    )


@pytest.mark.parametrize(("family", "fields"), TEXTS)
def test_encoding_before_the_pipeline_call_changes_no_bit(
    family: str, fields: dict[str, Any], catalogue: Catalogue, pool: Pool
) -> None:
    job = make_job(catalogue, family, num_inference_steps=1, **fields)
    model, inputs = pool.model(job.model), GenerationInputs(job)
    whole = derive(type(model.base), model.base)
    whole.set_progress_bar_config(disable=True)
    options = {} if job.clip_skip is None else {"clip_skip": job.clip_skip}

    def generate(pipeline: Any, texts: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return pipeline(
                **model.family.arguments(inputs),
                **texts,
                generator=torch.Generator().manual_seed(7),
                output_type="np",
            ).images

    theirs = generate(whole, {**inputs.texts, **options})
    ours = generate(model.pipeline(Mode.TXT2IMG, job.scheduler), _encoder(model).encode(inputs))
    assert np.array_equal(ours, theirs)


def test_a_receipt_does_not_tell_that_another_owner_used_the_same_prompt(
    catalogue: Catalogue, storage: Storage
) -> None:
    pool = Pool(catalogue, device="cpu")

    def look_ups(*owners: str) -> list[tuple[int, int, float, bool]]:
        job = make_job(catalogue, "sdxl", prompt="a secret plan", batchable=True, num_inference_steps=1)
        found = [result.receipt for result in run_jobs([job] * len(owners), pool, storage, owners=owners)]
        return [(one.embeddings.hits, one.embeddings.misses, one.mean_rows, one.joined) for one in found]

    ((_, texts, *_),) = look_ups("alice")
    assert texts > 0
    # Rows are those of two passes of guidance.
    assert look_ups("mallory") == [(0, texts, 2, False)]
    assert look_ups("mallory") == [(texts, 0, 2, False)]
    assert look_ups("bob", "alice", "bob") == [
        (0, texts, 4, True),
        (texts, 0, 2, True),
        (texts, 0, 4, True),
    ]
    assert pool.embeddings.misses == texts


def test_an_embedding_that_was_evicted_is_forgotten_with_its_users() -> None:
    one = Embedding({"prompt_embeds": torch.zeros(1, 8)})
    cache = EmbeddingCache(one.size_bytes)
    cache.put("first", one)
    cache.note_use("alice", "first")
    assert cache.is_known_to("alice", "first")
    assert not cache.is_known_to("bob", "first")

    cache.put("second", one)
    cache.put("first", one)

    assert not cache.is_known_to("alice", "first")


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_repeated_prompt_is_not_encoded_again_and_gives_the_same_bytes(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family, num_inference_steps=1, prompt="a prompt that is new to the cache")
    hits, misses = pool.embeddings.hits, pool.embeddings.misses
    first, receipt = complete_job(job, pool, storage)
    assert receipt.embeddings.misses == pool.embeddings.misses - misses > 0
    assert receipt.embeddings.hits == pool.embeddings.hits - hits
    hits, runs = pool.embeddings.hits, 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    encoders = [
        part for name, part in pool.model(f"shapes-{family}").base.components.items() if "text_enc" in name
    ]
    hooks = [encoder.register_forward_pre_hook(count) for encoder in encoders]
    again, receipt = complete_job(job, pool, storage)
    assert (again, runs) == (first, 0)
    assert receipt.embeddings.misses == 0
    assert receipt.embeddings.hits == pool.embeddings.hits - hits > 0
    complete_job(job.model_copy(update={"prompt": "another one"}), pool, storage)
    assert runs == len(encoders)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_each_image_of_a_job_has_the_embedding_of_its_prompt_which_is_encoded_once(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model, job = pool.model(f"shapes-{family}"), make_job(catalogue, family)
    alone = _encoder(model).encode(GenerationInputs(job))
    encoder = _encoder(model)
    several = encoder.encode(GenerationInputs(make_job(catalogue, family, num_images=3)))
    assert alone.keys() == several.keys()
    for name, rows in several.items():
        assert torch.equal(rows, torch.cat([alone[name]] * 3))
    assert (encoder.hits, encoder.misses) == (0, len(several) // 2)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("sdxl", {"prompt_2": "a green triangle"}),
        ("sdxl", {"clip_skip": 1}),
        ("sd3", {"prompt_3": "a green triangle"}),
        ("sd3", {"max_sequence_length": 32}),
        ("flux", {"max_sequence_length": 32}),
    ],
)
def test_everything_that_changes_an_embedding_is_in_its_cache_key(
    family: str, fields: dict[str, Any], catalogue: Catalogue, pool: Pool, uncached: Pool, storage: Storage
) -> None:
    """The image after another prompt's is the one that an empty cache gives."""
    text = f"a circle with {fields}"
    plain, changed = (
        make_job(catalogue, family, num_inference_steps=1, prompt=text, **more) for more in ({}, fields)
    )
    cold = generate_pixels(changed, uncached, storage)
    first = generate_pixels(plain, pool, storage)
    assert np.array_equal(generate_pixels(changed, pool, storage), cold)
    assert np.array_equal(generate_pixels(plain, pool, storage), first)
    assert not np.array_equal(first, cold)


def test_an_adapter_of_a_text_encoder_is_in_the_cache_key(two_adapters: Catalogue, storage: Storage) -> None:
    pool, uncached = Pool(two_adapters, device="cpu"), Pool(two_adapters, device="cpu", embedding_bytes=0)
    plain, weak, strong = (
        make_job(two_adapters, "sdxl", num_inference_steps=1, loras=loras)
        for loras in ([], [{"name": "extra", "scale": 0.2}], [{"name": "extra", "scale": 1.0}])
    )
    for job in (plain, weak, strong, plain):
        assert np.array_equal(generate_pixels(job, pool, storage), generate_pixels(job, uncached, storage))


def test_jobs_with_the_same_prompt_encode_it_once(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    shared: dict[str, Any] = {"batchable": True, "num_inference_steps": 1, "negative_prompt": "what nobody wants"}
    batch = [
        make_job(catalogue, "sd3", seed=1, num_images=2, prompt="what one wants", **shared),
        make_job(catalogue, "sd3", seed=9, prompt="what the other wants", **shared),
    ]
    outcomes = run_jobs(batch, pool, storage)
    first, second = (outcome.receipt.embeddings for outcome in outcomes)
    assert (first, second) == (CacheUse(hits=0, misses=2), CacheUse(hits=1, misses=1))


def _embedding(values: int) -> Embedding:
    return Embedding({"prompt_embeds": torch.zeros(1, values - 1, 1), "pooled_prompt_embeds": torch.zeros(1, 1)})


def test_the_cache_stays_within_its_budget_and_evicts_the_least_recently_used() -> None:
    cache = EmbeddingCache(80)
    for key in ("a", "b"):
        cache.put(key, _embedding(10))
    assert cache.get("a") is not None
    cache.put("c", _embedding(10))
    assert cache.size_bytes == 80
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    assert (cache.hits, cache.misses) == (3, 1)


def test_an_embedding_larger_than_the_budget_is_not_cached_and_evicts_nothing() -> None:
    cache = EmbeddingCache(40)
    cache.put("a", _embedding(10))
    cache.put("large", _embedding(11))
    assert cache.size_bytes == 40
    assert cache.get("a") is not None


def test_images_are_the_same_with_a_budget_of_zero(
    catalogue: Catalogue, pool: Pool, uncached: Pool, storage: Storage
) -> None:
    parameters = make_job(catalogue, "sdxl", num_inference_steps=1)
    assert complete_job(parameters, uncached, storage)[0] == complete_job(parameters, pool, storage)[0]
    assert complete_job(parameters, uncached, storage)[1].embeddings.hits == 0
