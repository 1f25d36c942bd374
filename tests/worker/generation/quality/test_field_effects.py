"""The whole table of fields: every family, mode, base and scheduler. `make judge` prints it."""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.requests.entries import Cascade, Control
from contracts.requests.fields import ImageFields, OptionalImages
from contracts.storage import Storage
from tests.support.field_effects import BASES, DELIVERY, ELSEWHERE, FieldEffects
from tests.support.jobs import generate_pixels
from worker.pool.pool import Pool

#: Models that only go on with others' images have no requests: they are the `cascade` of those.
EVERY_MODE = [
    (family.id, mode) for family in ALL_FAMILIES.values() if not family.runs_later_only for mode in family.modes
]


@pytest.fixture(scope="module")
def every_pool(every_model: Catalogue) -> Pool:
    """One pool for all of them."""
    return Pool(every_model, device="cpu")


@pytest.mark.parametrize(("family", "mode"), EVERY_MODE)
def test_each_field_alone_changes_the_image_or_is_refused(
    family: str, mode: Mode, every_model: Catalogue, every_pool: Pool, storage: Storage
) -> None:
    effects = FieldEffects(every_model, lambda parameters: generate_pixels(parameters, every_pool, storage))
    effects.store_inputs(storage)

    tried = [one for base in BASES for one in effects.try_all(family, mode, base, schedulers=base == "ten steps")]

    print(*tried, sep="\n")
    assert [str(one) for one in tried if one.result == "SAME"] == []
    fields = {*ImageFields.model_fields, *OptionalImages.model_fields}
    for list_field, kind in (("controls", Control), ("cascade", Cascade)):
        if list_field in ALL_FAMILIES[family].modes[mode]:
            fields |= {f"{list_field}.{name}" for name in kind.model_fields}
    assert (fields & {one.field for one in tried}) - DELIVERY == _expected(mode, fields) - DELIVERY - ELSEWHERE


def _expected(mode: Mode, fields: set[str]) -> set[str]:
    """The fields that requests of this mode may have, whether or not the family refuses them."""
    absent: set[str] = set()
    if mode is Mode.TXT2IMG:
        absent = set(OptionalImages.model_fields)
    elif mode is Mode.IMG2IMG:
        absent = {"mask_image", "mask_blur", "padding_mask_crop"}
    elif mode in (Mode.CONTROLNET, Mode.EDIT):
        absent = {"image", "mask_image", "fit"}
    elif mode is Mode.CONTROLNET_IMG2IMG:
        absent = {"mask_image"}
    return fields - absent
