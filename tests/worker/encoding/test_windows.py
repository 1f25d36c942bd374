"""Long prompts are read to their end, weights act on their own words, and short prompts keep their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Receipt
from contracts.prompts.tokens import TokenUse
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import complete_job, decode_pixels, fail_job, generate_pixels, make_job, run_jobs
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import EmbeddingCache
from worker.encoding.encoder import PromptEncoder
from worker.encoding.windows import token_counts
from worker.families.inputs import GenerationInputs
from worker.pool.pipelines import derive
from worker.pool.pool import Pool

FILLER = "very nice detailed picture " * 40
WITH_WINDOWS = ["sdxl", "sd3"]
FAMILIES = [*WITH_WINDOWS, "flux"]


def encode(job: JobParameters, pool: Pool, *, cache_bytes: int = 2**24) -> dict[str, torch.Tensor]:
    model = pool.model(job.model)
    encoder = PromptEncoder(
        model.base,
        model.family,
        model.device,
        model.dtype,
        EmbeddingCache(cache_bytes),
        (),
        AdapterSet(),
        model.adapters.active_in_text_encoders,
    )
    return encoder.encode(GenerationInputs(job))


def weighted(catalogue: Catalogue, family: str, prompt: str, **fields: Any) -> JobParameters:
    return make_job(catalogue, family, prompt=prompt, prompt_syntax="a1111", **fields)


@pytest.mark.parametrize("family", WITH_WINDOWS)
def test_a_long_prompt_begins_with_the_bits_of_its_beginning_and_goes_on(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    cut = encode(make_job(catalogue, family, prompt=FILLER, long_prompt="truncate"), pool)
    whole = encode(make_job(catalogue, family, prompt=FILLER), pool)

    assert whole["prompt_embeds"].shape[1] - cut["prompt_embeds"].shape[1] == 77 * 5
    assert torch.equal(whole["prompt_embeds"][:, :77], cut["prompt_embeds"][:, :77])
    assert torch.equal(whole["prompt_embeds"][:, 77 * 6 :], cut["prompt_embeds"][:, 77:])
    assert torch.equal(whole["pooled_prompt_embeds"], cut["pooled_prompt_embeds"])


@pytest.mark.parametrize("family", WITH_WINDOWS)
def test_the_shorter_of_both_prompts_is_filled_with_windows_of_the_empty_prompt(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    found = encode(make_job(catalogue, family, prompt="a circle", negative_prompt=FILLER), pool)
    alone = encode(make_job(catalogue, family, prompt="a circle"), pool)
    empty = encode(make_job(catalogue, family, prompt=" "), pool)

    assert found["prompt_embeds"].shape == found["negative_prompt_embeds"].shape
    assert torch.equal(found["prompt_embeds"][:, :77], alone["prompt_embeds"][:, :77])
    for window in range(1, 6):
        assert torch.equal(
            found["prompt_embeds"][:, 77 * window : 77 * (window + 1)], empty["prompt_embeds"][:, :77]
        )
    assert torch.equal(found["prompt_embeds"][:, 77 * 6 :], alone["prompt_embeds"][:, 77:])


@pytest.mark.parametrize("family", WITH_WINDOWS)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_the_end_of_a_long_prompt_moves_the_image(
    family: str, field: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    ends = ("a red circle on a blue background", "a green star on a yellow background")

    def differs(**fields: Any) -> bool:
        bodies: list[dict[str, Any]] = [{field: FILLER + end, "num_inference_steps": 2, **fields} for end in ends]
        jobs = [make_job(catalogue, family, **body) for body in bodies]
        one, other = (generate_pixels(job, pool, storage) for job in jobs)
        return bool(np.abs(one - other).max() > 8)

    assert differs()
    if family == "sdxl":
        assert not differs(long_prompt="truncate")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weight_of_a_word_moves_the_image_and_a_weight_of_one_does_not(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    plain, one, more = (
        generate_pixels(job, pool, storage)
        for job in (
            make_job(catalogue, family, prompt="a red (circle)", num_inference_steps=1),
            weighted(catalogue, family, r"a (red:1) \(circle\)", num_inference_steps=1),
            weighted(catalogue, family, r"a (red:1.8) \(circle\)", num_inference_steps=1),
        )
    )

    assert np.array_equal(plain, one)
    assert np.abs(plain - more).max() > 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_acts_on_its_own_tokens_only_and_in_proportion(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    def rows(weight: float) -> torch.Tensor:
        return encode(weighted(catalogue, family, f"a (red:{weight}) circle"), pool)["prompt_embeds"][0].double()

    plain, half, twice, nothing = rows(1), rows(0.5), rows(2), rows(0)
    empty = encode(make_job(catalogue, family, prompt=" "), pool)["prompt_embeds"][0].double()

    changed = (twice != plain).any(dim=1)
    assert changed.sum() in (1, 2)  # one token of each encoder: in SD3 those of CLIP and T5 have rows of their own
    assert torch.allclose(nothing[changed], empty[changed], atol=1e-5)
    assert torch.allclose(twice - plain, 2 * (plain - half), atol=1e-4)


def test_a_break_starts_a_new_window(catalogue: Catalogue, pool: Pool) -> None:
    found = encode(weighted(catalogue, "sdxl", "a red circle BREAK a blue background"), pool)
    first = encode(make_job(catalogue, "sdxl", prompt="a red circle"), pool)
    second = encode(make_job(catalogue, "sdxl", prompt="a blue background"), pool)

    assert torch.equal(found["prompt_embeds"], torch.cat([first["prompt_embeds"], second["prompt_embeds"]], dim=1))
    assert torch.equal(found["pooled_prompt_embeds"], first["pooled_prompt_embeds"])


def test_an_encoder_with_a_prompt_of_its_own_has_its_own_windows(catalogue: Catalogue, pool: Pool) -> None:
    job = make_job(catalogue, "sdxl", prompt=FILLER, prompt_2="a circle")
    other = make_job(catalogue, "sdxl", prompt=FILLER)
    width = pool.model(job.model).base.text_encoder.config.hidden_size

    found, whole = encode(job, pool)["prompt_embeds"], encode(other, pool)["prompt_embeds"]

    assert found.shape == whole.shape
    assert torch.equal(found[..., :width], whole[..., :width])
    assert not torch.equal(found[..., width:], whole[..., width:])


def test_without_a_cache_a_long_prompt_is_encoded_the_same(catalogue: Catalogue, pool: Pool) -> None:
    job = make_job(catalogue, "sdxl", prompt=FILLER, negative_prompt="(star)")

    cached, uncached = encode(job, pool), encode(job, pool, cache_bytes=0)

    assert all(torch.equal(cached[name], uncached[name]) for name in cached)


def test_jobs_whose_prompts_are_unequally_long_do_not_disturb_each_other(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    prompts = (FILLER, "a red circle", FILLER + "star")
    jobs = [
        make_job(catalogue, "sdxl", prompt=prompt, batchable=True, num_inference_steps=2) for prompt in prompts
    ]

    results = run_jobs(jobs, pool, storage)

    receipts: list[Receipt] = [result.receipt for result in results]
    assert [receipt.parameters.prompt for receipt in receipts] == list(prompts)
    for job, result in zip(jobs, results, strict=True):
        shown = decode_pixels(storage.read(result.stored[0].key))
        assert abs(shown - generate_pixels(job, pool, storage)).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_receipt_says_what_each_encoder_read(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    _, receipt = complete_job(make_job(catalogue, family, prompt=FILLER, num_inference_steps=1), pool, storage)

    clip, t5 = TokenUse(given=400, used=400), TokenUse(given=480, used=63)
    assert (
        receipt.prompt_tokens
        == {
            "sdxl": {"text_encoder": clip, "text_encoder_2": clip},
            "sd3": {"text_encoder": clip, "text_encoder_2": clip, "text_encoder_3": t5},
            "flux": {"text_encoder": TokenUse(given=400, used=75), "text_encoder_2": t5},
        }[family]
    )
    assert receipt.negative_prompt_tokens == {}


def test_an_encoder_that_is_skipped_reads_nothing(catalogue: Catalogue, pool: Pool) -> None:
    job = make_job(catalogue, "sd3")
    model = pool.model(job.model)
    pipeline = derive(type(model.base), model.base, text_encoder_3=None)

    tokens = token_counts(pipeline, model.spec.family_spec, job)["prompt_tokens"]

    assert tokens["text_encoder_3"].used == 0 < tokens["text_encoder_3"].given


def test_a_prompt_that_the_api_could_not_count_fails_with_a_code_of_its_own(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    error = fail_job(make_job(catalogue, "sdxl", prompt=FILLER, long_prompt="refuse"), pool, storage)

    assert (error.code, error.retryable) == (FailureCode.PROMPT_TOO_LONG, False)
    assert "400 tokens" in error.message
