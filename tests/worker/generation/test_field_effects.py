"""No field of a request is ignored: varied alone, it changes the image, or the request is refused.

A part of the table; `make judge` has all of it (`quality/test_field_effects.py`).
"""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.requests.entries import Cascade, Control
from contracts.requests.fields import ImageFields, OptionalImages
from contracts.storage import Storage
from tests.support.combinations import ALL
from tests.support.field_effects import DELIVERY, ELSEWHERE, VARIED, FieldEffects
from tests.support.jobs import generate_pixels
from worker.pool.pool import Pool


def test_each_field_of_a_request_is_in_the_table_or_is_about_the_delivery() -> None:
    fields = {*ImageFields.model_fields, *OptionalImages.model_fields}
    fields |= {f"controls.{name}" for name in Control.model_fields}
    fields |= {f"cascade.{name}" for name in Cascade.model_fields}
    assert fields - VARIED - DELIVERY - ELSEWHERE == set()


@pytest.mark.parametrize(
    ("family", "mode", "base"),
    [
        ("sdxl", Mode.INPAINT, "without guidance"),
        ("sd3", Mode.IMG2IMG, "usual"),
        ("flux", Mode.TXT2IMG, "usual"),
        ("sd15", Mode.CONTROLNET, "usual"),
        *(
            (family, mode, "usual")
            for family, mode in (
                ("flux", Mode.CONTROLNET),
                ("pixart", Mode.TXT2IMG),
                ("lumina2", Mode.TXT2IMG),
                ("sana", Mode.CONTROLNET),
                ("hunyuandit", Mode.CONTROLNET),
            )
            if ALL
        ),
    ],
)
def test_each_field_alone_changes_the_image_or_is_refused(
    family: str, mode: Mode, base: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    # A strength of 0.25 must leave a step.
    steps = 4 if "strength" in FAMILIES[family].modes[mode] else 2
    effects = FieldEffects(catalogue, lambda parameters: generate_pixels(parameters, pool, storage), steps)
    effects.store_inputs(storage)

    tried = list(effects.try_all(family, mode, base, schedulers=False))

    assert len(tried) > 10
    assert [str(one) for one in tried if one.result == "SAME"] == []
