"""What Darkroom makes equals, bit for bit, what a call of diffusers' pipeline makes with the same parameters."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.storage import Storage
from tests.support.bare_cases import CONTROL_FIELDS, IMAGE, MASK, TEXTS, Case
from tests.support.bare_diffusers import paint
from tests.support.jobs import generate_pixels, make_job, model_of
from tests.support.trained import TRAINED_FAMILIES
from tests.support.untrained import UNTRAINED
from worker.pool.pool import Pool

CASES = [case for module in UNTRAINED.values() for case in getattr(module, "CASES", [])]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_image_equals_that_of_bare_diffusers(
    case: Case, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {**TEXTS, **case.fields}
    if "negative_prompt" not in signature(getattr(diffusers, case.pipeline).__call__).parameters:
        del fields["negative_prompt"]
    controlnet = None
    if "controlnet" in case.mode:
        row = catalogue.controlnet(f"{case.family}-{'mask' if 'control_mask' in case.call else 'hint'}")
        controlnet = getattr(diffusers, FAMILIES[case.family].controlnet).from_pretrained(row.source)
        ranged = FAMILIES[case.family].control_ranges
        fields["control_fields"] = CONTROL_FIELDS if ranged else {"conditioning_scale": 0.7}
    fields["num_inference_steps"] = case.steps
    job = make_job(catalogue, case.family, case.mode, scheduler=case.scheduler, **fields)

    ours = generate_pixels(job, pool, storage)

    theirs = paint(
        Path(catalogue.model(model_of(catalogue, case.family)).source),
        case.pipeline,
        {**{name: text for name, text in TEXTS.items() if name in fields}, "num_inference_steps": case.steps}
        | dict(case.call),
        scheduler=case.scheduler,
        seed=7,
        controlnet=controlnet,
        settings=case.settings,
        prepare=getattr(UNTRAINED[case.family], "agree", None),
    )
    if case.call.keys() & {"mask_image", "control_mask"}:  # what the mask leaves black is the input's
        theirs = Image.composite(theirs, IMAGE, MASK)
    assert np.array_equal(ours, np.asarray(theirs))


def test_every_mode_of_every_untrained_family_is_compared() -> None:
    prompted = [family for family in FAMILIES.values() if not family.prompted_by_class]  # others: `test_dit.py`
    every = {(family.id, mode) for family in prompted for mode in family.modes}
    assert {(case.family, case.mode) for case in CASES} == {
        (family, mode) for family, mode in every if family not in TRAINED_FAMILIES
    }
