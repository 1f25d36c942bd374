"""Textual inversions on the real text encoders: diffusers' bits, in their own prompts alone, and no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, TextualInversionSpec
from contracts.jobs.failures import FailureCode
from contracts.storage import Storage
from tests.support.inversions import with_inversions_of
from tests.support.jobs import complete_job, fail_job, generate_pixels, make_job, run_jobs
from worker.checkpoints.loader import load_model
from worker.families import get_family
from worker.families.inputs import GenerationInputs
from worker.pool.pool import Pool

FAMILIES = ("sdxl", "sd15", "flux")


@pytest.fixture(scope="module")
def inverted(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The catalogue with a textual inversion of one vector and one of three, for each family that takes any."""
    return with_inversions_of(catalogue, tmp_path_factory.mktemp("inversions"), {"toy": 1, "look": 3})


@pytest.fixture(scope="module")
def inverted_pool(inverted: Catalogue) -> Pool:
    return Pool(inverted, device="cpu")


def _embeddings(pool: Pool, family: str, **fields: Any) -> dict[str, torch.Tensor]:
    """What the denoiser is given for a job's prompts."""
    job = make_job(pool.catalogue, family, **fields)
    model = pool.model(job.model)
    adapters = model.with_inversions(model.adapters.load(job.loras), job)
    return model.encoder(adapters, "").encode(GenerationInputs(job))


@pytest.fixture
def theirs(inverted: Catalogue, family: str) -> Any:
    """A pipeline into which diffusers has loaded the same files."""
    row = next(row for row in inverted.models if row.family == family)
    path = inverted.root / row.source
    pipeline = load_model(inverted, row, get_family(family), path, torch.float32)
    for name in ("toy", "look"):
        stored = load_file(inverted.textual_inversion(f"{family}-{name}").source)
        for encoder, part in row.family_spec.inversion_encoders.items():
            tokenizer = getattr(pipeline, encoder.replace("text_encoder", "tokenizer"))
            vectors = stored[part] if len(stored[part]) > 1 else stored[part][0]
            pipeline.load_textual_inversion(
                vectors, token=f"<{family}-{name}>", text_encoder=getattr(pipeline, encoder), tokenizer=tokenizer
            )
    return pipeline


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embedding_is_that_of_diffusers_own_loader(
    family: str, inverted: Catalogue, inverted_pool: Pool, theirs: Any
) -> None:
    encoding = get_family(family).encoding
    names = [f"{family}-toy", f"{family}-look"]
    for text in (f"a <{names[0]}> on blue", f"<{names[0]}><{names[1]}>, <{names[0]}>"):
        ours = _embeddings(
            inverted_pool, family, prompt=text,
            textual_inversions=[{"name": name} for name in names if name in text],
        )  # fmt: skip
        job = make_job(inverted, family, prompt=text)
        arguments = encoding.prompt_of(GenerationInputs(job)).arguments
        arguments = {**arguments, "prompt": [arguments["prompt"]]}
        if family == "flux":  # T5 knows no such word: it reads the text
            arguments["prompt_2"] = [text]
        with torch.no_grad():
            results = theirs.encode_prompt(**arguments, **encoding.constants, device=torch.device("cpu"))
        for name, index in encoding.results.items():
            assert torch.equal(ours[name], results[index]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_acts_where_it_is_named_and_leaves_tokenizer_and_table_as_they_were(
    family: str, inverted_pool: Pool
) -> None:
    base = inverted_pool.model(make_job(inverted_pool.catalogue, family).model).base
    table = base.text_encoder.get_input_embeddings()
    before = (len(base.tokenizer), table.weight.clone())
    text, name = f"a {family}-look on blue", {"name": f"{family}-look"}
    with_word = _embeddings(inverted_pool, family, prompt=text, textual_inversions=[name])
    plain = _embeddings(inverted_pool, family, prompt=text)
    by_syntax = _embeddings(inverted_pool, family, prompt=text, prompt_syntax="a1111")
    key = "pooled_prompt_embeds" if family == "flux" else "prompt_embeds"
    assert not torch.equal(with_word[key], plain[key])
    assert all(torch.equal(tensor, by_syntax[name]) for name, tensor in with_word.items())
    assert (len(base.tokenizer), table.weight.shape) == (before[0], before[1].shape)
    assert torch.equal(table.weight, before[1])
    assert not base.text_encoder._forward_pre_hooks
    assert not table._forward_hooks


def test_words_may_be_weighted_and_stand_in_any_window_of_a_long_prompt(inverted_pool: Pool) -> None:
    long = "a red circle " * 30
    plain = _embeddings(inverted_pool, "sdxl", prompt=f"{long} sdxl-toy")["prompt_embeds"]
    with_word = _embeddings(inverted_pool, "sdxl", prompt=f"{long} sdxl-toy", prompt_syntax="a1111")[
        "prompt_embeds"
    ]
    weighted = _embeddings(inverted_pool, "sdxl", prompt=f"{long} (sdxl-toy:1.4)", prompt_syntax="a1111")
    assert torch.equal(plain[:, :77], with_word[:, :77])
    assert not torch.equal(plain[:, 77:154], with_word[:, 77:154])
    assert not torch.equal(weighted["prompt_embeds"][:, 77:154], with_word[:, 77:154])


def test_each_image_of_a_joined_call_has_its_own_words(inverted_pool: Pool, storage: Storage) -> None:
    text = "a sdxl-look"
    jobs = [
        make_job(
            inverted_pool.catalogue, "sdxl", prompt=text, batchable=True, num_inference_steps=1,
            textual_inversions=[{"name": "sdxl-look"}] * named,
        )
        for named in (0, 1)
    ]  # fmt: skip
    alone = [generate_pixels(job, inverted_pool, storage) for job in jobs]
    results = run_jobs(jobs, inverted_pool, storage)
    assert [result.status for result in results] == ["completed"] * 2
    assert abs(alone[0] - alone[1]).max() > 0
    receipts = [complete_job(job, inverted_pool, storage)[1] for job in jobs]
    sha256 = inverted_pool.model("shapes-sdxl").adapters._files.fingerprint(
        Path(inverted_pool.catalogue.textual_inversion("sdxl-look").source)
    )
    assert [[one.sha256 for one in receipt.textual_inversions] for receipt in receipts] == [[], [sha256]]
    assert (
        receipts[1].prompt_tokens["text_encoder"].given == receipts[1].prompt_tokens["text_encoder_2"].given == 4
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: {"clip_l": tensors["clip_l"]}, "it has vectors for clip_l; sdxl needs clip_l and clip_g"),
        (lambda tensors: {**tensors, "clip_g": torch.ones(1, 32)}, "for text_encoder_2 have 32 values"),
        (lambda tensors: {**tensors, "clip_l": torch.full((1, 64), float("nan"))}, "clip_l contains NaN"),
    ],
)
def test_a_file_that_does_not_fit_fails_its_job_by_name(
    change: Any, reason: str, inverted: Catalogue, inverted_pool: Pool, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(change(load_file(inverted.textual_inversion("sdxl-toy").source)), path)
    row = TextualInversionSpec(id="other", family="sdxl", source=str(path))
    pool = Pool(inverted.model_copy(update={"textual_inversions": (row,)}), device="cpu")
    job = make_job(pool.catalogue, "sdxl", prompt="an other", textual_inversions=[{"name": "other"}])
    error = fail_job(job, pool, storage)
    assert error.code == FailureCode.ADAPTER_INCOMPATIBLE
    assert reason in error.message
