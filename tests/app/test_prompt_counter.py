"""The API counts the tokens of prompts as the workers do, without their libraries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from app.prompt_counter import PromptCounter, read_tokenizer
from contracts.catalogue.cached import select_files
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.hub.snapshot import fetch
from contracts.hub.source import HubSource
from contracts.hub_revisions import AgreedRows, Revisions
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.hub import serving, use_hub
from tests.support.hub_repositories import checkpoint, sketch

BUILT_IN = read_catalogue(BUILT_IN_CATALOGUE)
TEXTS = [
    "a red circle on a blue background",
    "",
    "  Un ŒUF,\n卵 🥚 don't\tit's 12345 <|endoftext|> ﬁne",
    "very nice detailed picture " * 40,
]
#: One of each content: models have tokenizers in common.
TOKENIZERS = {
    (BUILT_IN.root / model.source / encoder.tokenizer / "tokenizer.json").read_bytes(): (
        model.source,
        encoder.tokenizer,
    )
    for model in BUILT_IN.models
    for encoder in model.family_spec.text_encoders
}


def job_of(model: ModelSpec) -> JobParameters:
    request = Txt2ImgRequest(prompt="a red circle", model=model.id, negative_prompt="a star")
    return resolve(request, model, {})


@pytest.mark.parametrize(("source", "name"), TOKENIZERS.values())
def test_tokens_and_their_ends_are_those_of_the_library_that_encodes(source: str, name: str) -> None:
    folder = BUILT_IN.root / source / name
    theirs, ours = AutoTokenizer.from_pretrained(folder), read_tokenizer(folder)

    for text in TEXTS:
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in found["offset_mapping"]]
        assert list(ours(text)) == list(zip(found["input_ids"], ends, strict=True))


def test_a_published_clip_tokenizer_of_two_files_reads_as_the_single_file(tmp_path: Path) -> None:
    folder = BUILT_IN.root / "shapes-sdxl" / "tokenizer"
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")

    for text in TEXTS:
        assert read_tokenizer(tmp_path)(text) == read_tokenizer(folder)(text)


def test_a_model_whose_tokenizers_are_elsewhere_or_broken_has_no_count(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for encoder in FAMILIES["sdxl"].text_encoders:
        (broken / encoder.tokenizer).mkdir(parents=True)
        (broken / encoder.tokenizer / "tokenizer.json").write_text('{"model": 3')
    models = (
        ModelSpec(id="broken", family="sdxl", source="broken"),
        ModelSpec(id="away", family="sdxl", source="someone/something"),
    )
    counter = PromptCounter(Catalogue(root=tmp_path, default_model="broken", models=models))

    assert [counter.count(model, job_of(model)) for model in models] == [None, None]


def test_a_single_file_is_counted_by_the_folder_of_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").touch()
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(BUILT_IN.root / "shapes-sdxl" / name, tmp_path / "config" / name)
    model = ModelSpec(id="one", family="sdxl", source="one.safetensors", config="config")
    counter = PromptCounter(Catalogue(root=tmp_path, default_model="one", models=(model,)))

    counts = counter.count(model, job_of(model))

    assert counts is not None
    assert counts.prompt["text_encoder"].given > 0
    assert counts.negative is not None


def test_counting_needs_neither_torch_nor_transformers() -> None:
    program = "import sys, app.prompt_counter; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_tokens_are_counted_by_the_files_that_the_workers_agreed_on_though_the_cached_branch_has_moved(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BUILT_IN.models[0].model_copy(update={"source": "org/model", "variant": None})
    rows, source = BUILT_IN.model_copy(update={"models": (model,)}), HubSource("org/model")
    files = sketch(checkpoint(BUILT_IN.models[0].id))
    with serving() as hub:
        hub.commit("org/model", files)
        use_hub(monkeypatch, hub, tmp_path / "home")
        Revisions(queue.connection).resolve(source)
        fetch(source, select_files(model, source))
        hub.commit("org/model", files | {"tokenizer/tokenizer.json": b"{}"})
        fetch(source, select_files(model, source))  # as another service that shares the cache would
    assert PromptCounter(rows).count(model, job_of(model)) is None
    counts = PromptCounter(rows, AgreedRows(queue.connection)).count(model, job_of(model))
    assert counts is not None
    assert counts.prompt["text_encoder"].given == 3


def test_a_redis_that_is_away_leaves_rows_as_they_are() -> None:
    rows = AgreedRows(connect("redis://127.0.0.1:1", timeout_seconds=1, retries=0))
    assert rows.row(BUILT_IN, BUILT_IN.models[0]) == BUILT_IN.models[0]
