"""A textual inversion in training: its vectors learn, and the model stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.requests.training.parameters import TrainingParameters
from contracts.storage import Storage
from contracts.weights.adapters.inversion_files import read_inversion
from tests.support.jobs import INPUT_IMAGES
from tests.support.parameters import parameters
from worker.pool.pool import Pool
from worker.training.examples import Examples
from worker.training.preparation import Preparation
from worker.training.run import TrainingRun
from worker.training.trainees.inversion import InversionVectors, first_vectors


@pytest.fixture
def preparation(pool: Pool) -> Preparation:
    """Of a word of two vectors that begins as `red red`."""
    training = TrainingParameters.model_validate(
        {
            "task": "training",
            "model": "shapes-sdxl",
            "name": "blob",
            "settings": {
                "kind": "textual_inversion", "vectors": 2, "initial_text": "red", "rank": 1, "alpha": 1,
                "steps": 2, "learning_rate": 0.01, "resolution": 64, "seed": 3,
            },
            "images": [{"image": next(iter(INPUT_IMAGES)), "caption": "a blob on blue"}],
            "snapshot_every_steps": 2,
            "checkpoint_every_steps": 2,
            "sample": parameters(num_inference_steps=1).model_dump(),
        }
    )  # fmt: skip
    return Preparation(pool.model("shapes-sdxl"), training, "ann")


def learned(preparation: Preparation, examples: Examples, steps: int) -> TrainingRun:
    run = preparation.begin(examples)
    for _ in range(steps):
        run.learn()
    return run


@torch.inference_mode()  # as in the engine
def test_vectors_learn_bit_for_bit_and_nothing_else_does(
    preparation: Preparation, storage: Storage, tmp_path: Path
) -> None:
    model = preparation.model
    examples = preparation.read_examples(storage, [])
    tables = [model.base.text_encoder.get_input_embeddings(), model.base.text_encoder_2.get_input_embeddings()]
    before = [table.weight.clone() for table in tables]
    start = preparation.begin(examples).result({})
    whole = learned(preparation, examples, 2)
    assert whole.result({}) != start

    rest = preparation.begin(examples)
    rest.restore(learned(preparation, examples, 1).checkpoint())
    rest.learn()
    assert rest.checkpoint() == whole.checkpoint()

    assert all(torch.equal(table.weight, then) for table, then in zip(tables, before, strict=True))
    for module in (model.denoiser, model.base.text_encoder, model.base.text_encoder_2):
        assert all(parameter.grad is None for parameter in module.parameters())
    path = tmp_path / "blob.safetensors"
    path.write_bytes(whole.result({}))
    assert read_inversion(path).vectors == 2


@pytest.mark.parametrize(("word", "tensor"), [("blob", "blob"), ("blob.2", "emb_params")])
def test_the_vectors_of_one_encoder_are_under_the_word_where_it_can_be_a_name(
    checkpoint: Any, tmp_path: Path, word: str, tensor: str
) -> None:
    encoder = checkpoint.text_encoder
    start = {"text_encoder": first_vectors(encoder, checkpoint.tokenizer, None, 3)}
    encoders = {"text_encoder": ("clip_l", encoder)}
    path = tmp_path / "word.safetensors"
    path.write_bytes(InversionVectors(checkpoint.unet, encoders, word, start, lambda *_: {}).file({}))
    facts = read_inversion(path)
    assert (facts.vectors, dict(facts.tensors)) == (3, {"clip_l": tensor})


def test_the_text_that_it_begins_with_is_repeated_or_cut(checkpoint: Any) -> None:
    encoder, tokenizer = checkpoint.text_encoder, checkpoint.tokenizer
    one, three = (first_vectors(encoder, tokenizer, "ab", count) for count in (1, 3))
    assert torch.equal(three[0], three[2])
    assert torch.equal(one[0], three[0])
    assert not torch.equal(three[0], three[1])
