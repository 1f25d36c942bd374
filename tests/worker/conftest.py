"""What the worker's tests share: the small real checkpoints, one warm pool on them, a storage with images."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.adapters import checkpoint_of
from tests.support.cascade import with_cascade_row
from tests.support.combinations import ALL
from tests.support.flux_tools import with_flux_tools
from tests.support.images import encode_image
from tests.support.jobs import INPUT_IMAGES
from tests.support.qwen_edits import small_references, with_qwen_edits
from tests.support.refiner import with_refiner_row
from tests.support.smaller_models import write_smaller_models
from tests.support.trained import only_trained_families
from tests.support.untrained import with_untrained
from tests.support.untrained.flux2 import with_flux2_klein
from tests.support.untrained.sana import with_sana_sprint
from tests.support.weights import write_adapter, write_controlnet, write_mask_controlnet
from tests.support.workers import close_connections
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

torch.set_num_threads(1)
#: What images show under plans that change them, in `make judge`; by how much, `offload/test_placement.py` knows.
collect_ignore = [] if ALL else ["offload/test_placed_images.py"]
#: Of a pool that a session's tests share: none of its small models leaves, and is loaded again, for another.
ALL_MODELS = 99


@pytest.fixture(autouse=True)
def connections_closed() -> Iterator[None]:
    """Close the connections of the consumers that a test made."""
    yield
    close_connections()


@pytest.fixture(autouse=True)
def signals_restored() -> Iterator[None]:
    """A consumer takes over the signals of its process, which here is the tests'."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for weights that the repository does not ship: one for all processes of the run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "weights_folder"
    folder.mkdir(exist_ok=True)
    return folder


def _written_once(folder: Path, name: str, write: Callable[[], Catalogue]) -> Catalogue:
    """The catalogue with the rows of what the first process that needs it writes into the folder."""
    file = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(write().model_dump_json())
    return Catalogue.model_validate_json(file.read_text())


@pytest.fixture(scope="session")
def smaller_models(weights_folder: Path) -> Catalogue:
    """The built-in models with smaller parts: their images show nothing, and take less time."""
    silence_known_warnings()
    return _written_once(weights_folder, "smaller", lambda: write_smaller_models(weights_folder / "models"))


@pytest.fixture(scope="session")
def shipped() -> Catalogue:
    """The built-in models, LoRAs and ControlNets, for tests of what images show."""
    return read_catalogue(BUILT_IN_CATALOGUE)


@pytest.fixture(scope="session", autouse=True)
def modules_frozen(smaller_models: Catalogue) -> None:
    """Import what loading a model imports, and leave it out of garbage collections, as a worker does."""
    for spec in smaller_models.models:
        Pool(smaller_models, device="cpu").model(spec.id)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def pools_frozen(modules_frozen: None) -> None:
    """Leave what earlier files have loaded, and all tests share, out of garbage collections, too."""
    del modules_frozen
    gc.freeze()


@pytest.fixture(scope="session")
def catalogue(smaller_models: Catalogue, weights_folder: Path) -> Catalogue:
    """Small models of all families, and for each an adapter and ControlNets that surely change the image."""
    return _written_once(
        weights_folder,
        "catalogue",
        lambda: with_untrained(_with_adapters(smaller_models, weights_folder), weights_folder),
    )


@pytest.fixture(scope="session")
def trained(shipped: Catalogue, weights_folder: Path) -> Catalogue:
    """The built-in models of `TRAINED_FAMILIES` with such adapters and ControlNets."""
    built_in = only_trained_families(shipped)
    return _written_once(weights_folder, "trained", lambda: _with_adapters(built_in, weights_folder / "trained"))


def _with_adapters(built_in: Catalogue, weights_folder: Path) -> Catalogue:
    weights_folder.mkdir(exist_ok=True)
    loras, controlnets = [], []
    for model in built_in.models:
        checkpoint, family = built_in.root / model.source, model.family
        write_adapter(weights_folder / f"{family}.safetensors", family, checkpoint, rank=4, seed=1)
        loras.append(
            LoraSpec(id=f"{family}-lora", family=family, source=str(weights_folder / f"{family}.safetensors"))
        )
        source = built_in.root / "controlnets" / f"shapes-{family}-silhouette"
        write_controlnet(weights_folder / f"{family}-hint", family, source)
        controlnets.append(
            ControlNetSpec(id=f"{family}-hint", family=family, source=str(weights_folder / f"{family}-hint"))
        )
    write_mask_controlnet(weights_folder / "sd3-mask", built_in.root / "shapes-sd3")
    controlnets.append(
        ControlNetSpec(id="sd3-mask", family="sd3", kind="inpaint", source=str(weights_folder / "sd3-mask"))
    )
    return built_in.model_copy(update={"controlnets": tuple(controlnets), "loras": tuple(loras)})


@pytest.fixture(scope="session", autouse=True)
def references_are_small() -> Iterator[None]:
    """References that diffusers scales are small ones here, for our calls and for those of bare diffusers."""
    with small_references():
        yield


@pytest.fixture(scope="session")
def flux_tools(catalogue: Catalogue, weights_folder: Path) -> Catalogue:
    """The same, with a small FLUX.1 tool of each kind, Qwen-Image edits, a FLUX.2 klein and a Sana-Sprint."""

    def write() -> Catalogue:
        with_edits = with_qwen_edits(with_flux_tools(catalogue, weights_folder), weights_folder)
        return with_sana_sprint(with_flux2_klein(with_edits, weights_folder), weights_folder)

    return _written_once(weights_folder, "flux_tools", write)


@pytest.fixture(scope="session")
def tools_pool(flux_tools: Catalogue) -> Pool:
    """One pool for the tests of the FLUX.1 tools and of Qwen-Image's edits."""
    return Pool(flux_tools, device="cpu", max_models=ALL_MODELS)


@pytest.fixture(scope="session")
def refined(catalogue: Catalogue, weights_folder: Path) -> Catalogue:
    """The same as `catalogue`, with a small refiner for the SDXL model."""
    return _written_once(weights_folder, "refined", lambda: with_refiner_row(catalogue, weights_folder))


@pytest.fixture(scope="session")
def refined_pool(refined: Catalogue) -> Pool:
    """One pool for the tests of the refiner."""
    return Pool(refined, device="cpu")


@pytest.fixture(scope="session")
def cascaded(catalogue: Catalogue, weights_folder: Path) -> Catalogue:
    """The same as `catalogue`, with a small stage II for DeepFloyd IF."""
    return _written_once(weights_folder, "cascaded", lambda: with_cascade_row(catalogue, weights_folder))


@pytest.fixture(scope="session")
def cascade_pool(cascaded: Catalogue) -> Pool:
    """One pool for the tests of DeepFloyd IF's two stages."""
    return Pool(cascaded, device="cpu")


@pytest.fixture(scope="session")
def pool(catalogue: Catalogue) -> Pool:
    """One pool for all tests; a test that spoils it is a test that found something."""
    return Pool(catalogue, device="cpu", max_models=ALL_MODELS)


@pytest.fixture(scope="session")
def trained_pool(trained: Catalogue) -> Pool:
    """One pool for the tests of what images show, or of plans whose bytes must not be few."""
    return Pool(trained, device="cpu", max_models=ALL_MODELS)


@pytest.fixture(scope="session")
def input_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a storage with the images that `make_job` names: a start image, a mask, a control image."""
    folder = tmp_path_factory.mktemp("input_images") / "storage"
    storage = LocalStorage(folder)
    for key, image in INPUT_IMAGES.items():
        storage.write(key, encode_image(image))
    return folder


@pytest.fixture
def storage(input_images: Path, tmp_path: Path) -> Storage:
    """A storage with these images. They are copied: writing them waits for the disk eight times."""
    return LocalStorage(Path(shutil.copytree(input_images, tmp_path / "storage")))


@pytest.fixture(scope="session")
def add_lora(catalogue: Catalogue, weights_folder: Path) -> Callable[..., Pool]:
    """Writes tensors, or a file's copy, as the adapter `extra` of a family; returns the pool that has it.

    That is one pool for each family: what was `extra` before is another adapter.
    """

    @cache
    def pool_of(family: str, path: Path) -> Pool:
        row = LoraSpec(id="extra", family=family, source=str(path))
        return Pool(catalogue.model_copy(update={"loras": (*catalogue.loras, row)}), device="cpu")

    def add(family: str, tensors: dict[str, torch.Tensor] | Path) -> Pool:
        path, written = (weights_folder / f"extra-{family}.{end}" for end in ("safetensors", "new"))
        if isinstance(tensors, Path):
            shutil.copyfile(tensors, written)
        else:
            save_file(tensors, written)
        written.replace(path)
        return pool_of(family, path)

    return add


@pytest.fixture(scope="session")
def two_adapters(catalogue: Catalogue, weights_folder: Path) -> Catalogue:
    """A catalogue with a second adapter for SDXL, `extra`: of another rank, and for a text encoder, too."""
    path = weights_folder / "second.safetensors"
    write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), rank=8, seed=2, text_encoder=True)
    row = LoraSpec(id="extra", family="sdxl", source=str(path))
    return catalogue.model_copy(update={"loras": (*catalogue.loras, row)})
