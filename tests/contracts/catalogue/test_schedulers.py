"""The scheduler table agrees with the families that use it."""

from __future__ import annotations

from contracts.catalogue.families import FAMILIES
from contracts.catalogue.schedulers import SCHEDULERS, names_for


def test_every_kind_of_model_has_its_own_schedulers() -> None:
    diffusion, flow = set(names_for("diffusion")), set(names_for("flow"))
    assert diffusion
    assert flow
    assert not diffusion & flow
    assert diffusion | flow == set(SCHEDULERS)


def test_each_familys_default_scheduler_works_with_it() -> None:
    for family in FAMILIES.values():
        assert family.defaults["scheduler"] in names_for(family.kind)
