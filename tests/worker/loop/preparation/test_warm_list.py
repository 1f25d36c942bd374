"""Models that a worker loads at its start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.jobs.preparations import FAILED
from worker.loop.preparation.prefetch import Prefetcher
from worker.loop.preparation.warm_list import WarmList
from worker.pool.pool import Pool


def test_a_model_whose_files_are_here_and_cannot_be_loaded_is_reported(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    first, *others = catalogue.models
    folder = tmp_path / "incomplete"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8")
    broken = first.model_copy(update={"source": str(folder)})
    pool = Pool(catalogue.model_copy(update={"models": (broken, *others)}), device="cpu")
    warm_list = WarmList(pool, Prefetcher(pool.prepare, is_here=pool.fetcher.is_here), is_compiled=False)
    warm_list.start([first.id])
    (failure,) = warm_list.failures
    assert (failure.name, failure.state) == (first.id, FAILED)
    assert failure.message.startswith(f"{first.id} cannot be loaded")


def test_a_start_finds_what_cannot_be_loaded_before_a_job_names_it(catalogue: Catalogue, tmp_path: Path) -> None:
    """Each was accepted before, and every job of it failed."""
    gap, refiner = (Path(shutil.copytree(catalogue.root / "shapes-sdxl", tmp_path / name)) for name in "ab")
    weights = gap / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights)
    index = json.loads((refiner / "model_index.json").read_text())
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    (refiner / "model_index.json").write_text(json.dumps(index))
    union = tmp_path / "union"
    union.mkdir()
    (union / "config.json").write_text('{"_class_name": "ControlNetUnionModel"}')
    row = catalogue.model("shapes-sdxl")
    models = [row.model_copy(update={"id": path.name, "source": str(path)}) for path in (gap, refiner)]
    net = ControlNetSpec(id="union", family="sdxl", source=str(union))
    rows = {"models": (row, *models), "controlnets": (net,), "loras": ()}
    pool = Pool(catalogue.model_copy(update=rows), device="cpu")
    warm_list = WarmList(pool, Prefetcher(pool.prepare, is_here=pool.fetcher.is_here), is_compiled=False)
    warm_list.start([])
    assert {failure.name: failure.message for failure in warm_list.failures} == {
        "a": "a cannot be loaded: unet lacks weights: conv_in.bias",
        "b": "b cannot be loaded: it has no text_encoder, which family sdxl needs",
        "controlnet:union": "union cannot be loaded: it is a union of 6 kinds of control (by its "
        "config.json), and its row names 0: all of them must be in `modes`, such as modes = "
        '["canny", "tile"], in the order of their numbers',
    }
    assert pool.warm == []


def test_a_row_that_is_added_while_the_worker_runs_is_rehearsed(catalogue: Catalogue, tmp_path: Path) -> None:
    first = catalogue.models[0]
    own = catalogue.model_copy(update={"models": (first,)})
    pool = Pool(own, device="cpu")
    warm_list = WarmList(pool, Prefetcher(pool.prepare, is_here=pool.fetcher.is_here), is_compiled=False)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8")
    broken = first.model_copy(update={"id": "broken", "source": str(tmp_path)})
    warm_list.load_prepared()
    assert warm_list.failures == []
    own.take_over(own.model_copy(update={"models": (first, broken)}))
    warm_list.load_prepared()
    assert [failure.name for failure in warm_list.failures] == ["broken"]
