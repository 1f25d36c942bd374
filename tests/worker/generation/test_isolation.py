"""A job leaves no trace in the next one: whatever ran before, its files are those of a fresh process.

Random histories of jobs over all families: LoRAs, their relatives and a hypernetwork at several scales, of the
denoiser and of text encoders, T2I-Adapters, reference images, textual inversions, guidance, VAEs, in every mode
and with several schedulers, exact and fast, models and adapters that displace each other, jobs that are cancelled,
and failures in the middle of everything.
`DARKROOM_ISOLATION_HISTORIES=40` looks longer.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec, VaeSpec
from contracts.catalogue.families import FAMILIES, Mode, Task, task_of
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.combinations import ALL
from tests.support.forked_programs import ForkedProgram
from tests.support.hypernetworks import make_networks, write_hypernetwork
from tests.support.images import encode_image
from tests.support.inversions import with_inversions_of
from tests.support.ip_adapters import with_ip_adapters
from tests.support.jobs import (
    INPUT_IMAGES,
    JobStopped,
    RecordingWatch,
    complete_job,
    fail_job,
    make_job,
    run_jobs,
)
from tests.support.lycoris import write_lycoris
from tests.support.t2i_adapters import with_t2i_adapters
from tests.support.trained import TRAINED_FAMILIES
from tests.support.untrained_parts import seeded
from tests.support.weights import to_kohya, write_adapter
from worker.adapters.files import Limits, LoraFiles
from worker.pool.model import LoadedModel
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

HISTORIES = int(os.environ.get("DARKROOM_ISOLATION_HISTORIES", "1"))
#: Jobs of a history before which nothing goes wrong; before as many others as there are faults, each does once.
UNDISTURBED = 16 if ALL else 1


@pytest.fixture(scope="module")
def adapted(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """For each family LoRAs: one of a text encoder too, one of LoRA's relatives, and one that does not fit."""
    folder, rows = tmp_path_factory.mktemp("adapters"), list(catalogue.loras)
    for family in TRAINED_FAMILIES:
        with_text, broken = folder / f"{family}-text.safetensors", folder / f"{family}-broken.safetensors"
        checkpoint = catalogue.root / f"shapes-{family}"
        tensors = write_adapter(with_text, family, checkpoint, rank=6, seed=2, text_encoder=True)
        if family == "sdxl":
            save_file(to_kohya(tensors, alpha=2.0), with_text)
        key = next(key for key in tensors if key.startswith("text_encoder.") and "lora_B" in key)
        save_file(tensors | {key: torch.zeros(3, 6)}, broken)
        relatives = folder / f"{family}-lycoris.safetensors"
        write_lycoris(relatives, family, checkpoint)
        rows += [
            LoraSpec(id=f"{family}-lycoris", family=family, source=str(relatives)),
            LoraSpec(id=f"{family}-text", family=family, source=str(with_text)),
            LoraSpec(id=f"{family}-broken", family=family, source=str(broken)),
        ]
        if family == "sdxl":
            hyper = write_hypernetwork(folder / "hyper.safetensors", make_networks([64, 128]))
            rows.append(LoraSpec(id="sdxl-hyper", family=family, source=str(hyper)))
    with_loras = catalogue.model_copy(update={"loras": tuple(rows)})
    with_references = with_ip_adapters(with_loras, folder / "ip")
    with_inversions = with_inversions_of(with_references, folder / "inversions", {"toy": 1, "look": 3})
    with_adapters = with_t2i_adapters(with_inversions, folder)
    return with_adapters.model_copy(update={"vaes": tuple(_write_vaes(catalogue, folder))})


def _write_vaes(catalogue: Catalogue, folder: Path) -> Iterator[VaeSpec]:
    """For each family a VAE with other weights than its own."""
    for family in TRAINED_FAMILIES:
        own = diffusers.AutoencoderKL.load_config(catalogue.root / f"shapes-{family}" / "vae")
        seeded(lambda own=own: diffusers.AutoencoderKL.from_config(own)).save_pretrained(folder / f"{family}-vae")  # type: ignore[misc]
        yield VaeSpec(id=f"{family}-vae", family=family, source=str(folder / f"{family}-vae"))


def _draw_requests(rng: random.Random, catalogue: Catalogue, family: str) -> Iterator[JobParameters]:
    """One prompt with every kind of adapters: what one leaves behind would show in the others' images."""
    model = catalogue.model(f"shapes-{family}")
    prompt, seed = rng.choice(["a red circle", "a blue square on a white background"]), rng.choice([0, 7])
    words = [row.id for row in catalogue.textual_inversions if row.family == family]
    plain, text, relatives = (f"{family}-{name}" for name in ("lora", "text", "lycoris"))
    # The same prompt with its words as vectors, or as the words that they are without.
    prompt = f"{prompt}, {', '.join(words)}" if words else prompt
    hyper = {"sdxl-hyper": 0.6} if family == "sdxl" else {}
    for scales in ({}, {plain: -0.5} | hyper, {text: 1.0, relatives: -0.7}, {relatives: 0.5, plain: 1.0}):
        fast = plain in scales and relatives in scales
        mode = Mode.CONTROLNET if fast else rng.choice(list(model.family_spec.modes))
        yield make_job(
            catalogue,
            family,
            mode,
            prompt=prompt,
            textual_inversions=[{"name": word} for word in words if rng.random() < 0.4],
            seed=seed,
            num_inference_steps=8 if fast else 2,
            speed="fast" if fast else "exact",
            scheduler=rng.choice(model.schedulers[:3]),
            loras=[{"name": name, "scale": scale} for name, scale in scales.items()],
            **_draw_control(rng, family, mode),
            **_draw_guidance(rng, catalogue, family, mode),
            **_draw_references(rng, catalogue, family, likely=len(scales) < 2),
        )


def _draw_control(rng: random.Random, family: str, mode: Mode) -> dict[str, Any]:
    """A T2I-Adapter, beside a ControlNet or alone, for requests of SDXL that have control images."""
    if family != "sdxl" or task_of(mode) is not Task.CONTROLNET:
        return {}
    adapter = {
        "controlnet": rng.choice(["sdxl-t2i", "sdxl-t2i-grey"]),
        "conditioning_scale": rng.choice([0.5, 1.0]),
    }
    return {"control_fields": [adapter, {}][: rng.choice([1, 2])]}


def _draw_guidance(rng: random.Random, catalogue: Catalogue, family: str, mode: Mode) -> dict[str, Any]:
    """Another guidance, and another VAE, for one request of three each, where its family and mode take them."""
    spec, fields = FAMILIES[family], dict[str, Any]()
    if "guidance" in spec.modes[mode] and rng.random() < 0.35:
        fields["guidance"] = {"kind": rng.choice(spec.guidance_kinds), "start": 0, "stop": 1}
        fields |= {"true_cfg_scale": 2.0} if spec.negative_needs_true_cfg else {}
    vaes = [row.id for row in catalogue.vaes if row.family == family]
    if vaes and rng.random() < 0.35:
        fields["vae"] = rng.choice(vaes)
    return fields


def _draw_references(rng: random.Random, catalogue: Catalogue, family: str, *, likely: bool) -> dict[str, Any]:
    """Reference images for one request of two, where its family takes any."""
    rows = [row.id for row in catalogue.ip_adapters if row.family == family]
    if not rows or not likely or rng.random() < 0.5:
        return {}
    names = rng.sample(rows, min(rng.choice([1, 2]), len(rows)))
    return {
        "ip_adapters": [
            {"name": name, "images": [rng.choice(["inputs/image.png", "inputs/control.png"])], "scale": 0.7}
            for name in names
        ]
    }


def main() -> None:
    """In a new process: run a job; its request, and all that it needs, lie in the folder that is named."""
    silence_known_warnings()
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    request, catalogue = ((folder / name).read_text() for name in ("request.json", "catalogue.json"))
    pool = Pool(Catalogue.model_validate_json(catalogue), device="cpu")
    files, _ = complete_job(JobParameters.model_validate_json(request), pool, LocalStorage(folder))
    for number, file in enumerate(files):
        (folder / f"{number}.image").write_bytes(file)


@pytest.fixture(scope="module")
def alone(adapted: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Callable[[JobParameters], list[bytes]]:
    """Returns the files of a job from a process of its own, forked from one that has run nothing."""

    @cache
    def files_of(request: str) -> list[bytes]:
        folder = tmp_path_factory.mktemp("alone")
        (folder / "request.json").write_text(request)
        (folder / "catalogue.json").write_text(adapted.model_dump_json())
        for key, image in INPUT_IMAGES.items():
            LocalStorage(folder).write(key, encode_image(image))
        program = ForkedProgram(__name__, os.environ, words=[str(folder)])
        _, said = program.communicate(timeout=120)
        assert program.returncode == 0, said
        return [file.read_bytes() for file in sorted(folder.glob("*.image"))]

    return lambda request: files_of(request.model_dump_json())


# -- what may go wrong in the middle of a job -------------------------------------------------------------


@contextmanager
def _failing(module: torch.nn.Module, after: int) -> Iterator[None]:
    """The module's calls fail after the first `after` ones."""
    calls = []

    def count(*_: Any) -> None:
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("something went away")

    handle = module.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _failing_switch() -> Iterator[None]:
    """Registering the seventh hook fails."""
    register, calls = torch.nn.Module.register_forward_hook, []

    def count(self: torch.nn.Module, *hook: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("the device went away")
        return register(self, *hook, **options)

    torch.nn.Module.register_forward_hook = count  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_forward_hook = register  # type: ignore[method-assign]


Fault = Callable[[LoadedModel], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    "cancelled": lambda model: nullcontext(),
    "denoiser": lambda model: _failing(getattr(model.base, model.family.denoiser), 1),
    "encoder": lambda model: _failing(model.base.text_encoder_2, 0),
    "decoder": lambda model: _failing(model.base.vae.decoder, 0),
    "switch": lambda model: _failing_switch(),
    "broken adapter": lambda model: nullcontext(),
    "mixed jobs": lambda model: nullcontext(),
    "cancelled mixed jobs": lambda model: nullcontext(),
}


def _mixed_jobs(catalogue: Catalogue, request: JobParameters) -> list[JobParameters]:
    """No adapters, one, two, and one that does not fit: more than the test's pool keeps loaded."""
    family = catalogue.model(request.model).family
    sets: list[dict[str, float]] = [{}, {"lycoris": 1.0}, {"text": 0.5, "lora": -0.5}, {"broken": 1.0}]
    words = [row.id for row in catalogue.textual_inversions if row.family == family]
    references = [{"name": "sdxl-plus", "images": ["inputs/control.png"]}] if family == "sdxl" else []
    control: dict[str, Any] = {"mode": Mode.CONTROLNET, "control_fields": {"controlnet": "sdxl-t2i"}}
    return [
        make_job(
            catalogue,
            family,
            batchable=True,
            num_inference_steps=2,
            prompt=request.prompt,
            textual_inversions=[{"name": word} for word in words] if "text" in scales else [],
            ip_adapters=references if "lora" in scales else [],
            **(control if family == "sdxl" and "lycoris" in scales else {}),
            loras=[{"name": f"{family}-{name}", "scale": scale} for name, scale in scales.items()],
        )
        for scales in sets
    ]


def _run_into(request: JobParameters, fault: str, pool: Pool, storage: Storage) -> None:
    """Run a job into a fault, which must not be fatal."""
    if fault == "broken adapter":
        family = pool.catalogue.model(request.model).family
        loras = [{"name": f"{family}-text", "scale": 0.5}, {"name": f"{family}-broken"}]
        fail_job(make_job(pool.catalogue, family, loras=loras), pool, storage)
    elif fault == "mixed jobs":
        results = run_jobs(_mixed_jobs(pool.catalogue, request), pool, storage)
        assert [result.status for result in results] == [*["completed"] * 3, "failed"]
    elif fault == "cancelled mixed jobs":
        with pytest.raises(JobStopped):
            run_jobs(
                _mixed_jobs(pool.catalogue, request),
                pool,
                storage,
                RecordingWatch(stop_after=1, error=JobStopped()),
            )
    elif fault == "cancelled":
        with pytest.raises(JobStopped):
            run_jobs(request, pool, storage, RecordingWatch(stop_after=1, error=JobStopped()))
    else:
        with FAULTS[fault](pool.model(request.model)):
            run_jobs(request, pool, storage)


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_after_any_history_a_job_gives_the_files_of_a_new_process(
    seed: int,
    adapted: Catalogue,
    alone: Callable[[JobParameters], list[bytes]],
    storage: Storage,
) -> None:
    rng, history = random.Random(2026), list[str]()
    requests = {family: list(_draw_requests(rng, adapted, family)) for family in TRAINED_FAMILIES}
    rng.seed(seed)
    # Room for two models, and for two adapters beside each.
    pool = Pool(adapted, device="cpu", max_models=2, lora_files=LoraFiles(adapted, limits=Limits(loaded=2)))
    for fault in rng.sample([*FAULTS, *[""] * UNDISTURBED], len(FAULTS) + UNDISTURBED):
        family = rng.choice(list(requests))
        if fault:
            number = rng.randrange(len(requests[family]))
            history.append(f"{family} {number} {fault}")
            _run_into(requests[family][number], fault, pool, storage)
        number = rng.randrange(len(requests[family]))
        history.append(f"{family} {number}")
        request = requests[family][number]
        assert complete_job(request, pool, storage)[0] == alone(request), f"after {history}: {request!r}"
