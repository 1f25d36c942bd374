"""bitsandbytes' quantizations, whose kernels on a card nothing else runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.trials import Trial, make
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.quantizations import kinds_of
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.gpu_blocks.setup import Setup, gib
from worker.pool.pool import Pool

#: The shapes model that is quantized, and its transformer's folder.
_MODEL, _PART = "shapes-flux", "transformer"


def bitsandbytes(setup: Setup) -> Iterator[dict[str, Any]]:
    """The small FLUX.1 by each, quantized now and before: planned and loaded bytes, and how images differ.

    `difference` is the mean of the pixels' beside the image of the weights that are not quantized, of 255.
    """
    if find_spec("bitsandbytes") is None:
        yield {"skipped": "bitsandbytes is not installed"}
        return
    source = (BUILT_IN_CATALOGUE.parent / _MODEL).resolve()
    plain = _image(setup, _catalogue(source, None))[0]
    for kind in kinds_of("bitsandbytes"):
        saved = setup.folder / f"{_MODEL}-{kind}"
        shutil.copytree(source, saved, ignore=shutil.ignore_patterns(_PART))
        for origin, catalogue in (("row", _catalogue(source, kind)), ("folder", None)):
            image, pool = _image(setup, catalogue or _catalogue(saved, None))
            model = pool.model("one")
            if origin == "row":
                model.base.transformer.save_pretrained(saved / _PART)
            loaded = model.placement.device_bytes[_PART]
            plan = pool.plan_selector.capacity.models["one"]
            planned = next(part.bytes for part in plan.components if part.name == _PART)
            yield {
                "quantization": kind, "from": origin, "loaded_gib": gib(loaded), "planned_gib": gib(planned),
                "difference": round(float(np.abs(image - plain).mean()), 3),
            }  # fmt: skip


def _catalogue(source: Path, kind: str | None) -> Catalogue:
    row = ModelSpec(id="one", family="flux", source=str(source), dtype="bfloat16", quantization=kind)
    built_in = read_catalogue(BUILT_IN_CATALOGUE)
    return with_checkpoint_limits(
        built_in.model_copy(update={"models": (row,), "default_model": "one", "loras": (), "controlnets": ()})
    )


def _image(setup: Setup, catalogue: Catalogue) -> tuple[Any, Pool]:
    pool = Pool(catalogue, device=setup.device.type)
    trial = Trial(catalogue, setup.device.type, side=64, steps=4)
    image = make(trial, pool, catalogue.models[0], seed=1).images[0]
    return np.asarray(image, dtype=np.int16), pool
