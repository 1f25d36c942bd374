"""Peaks of small models of all families beside their plans, in every mode. `make judge` prints them.

Plans are made with tables that were counted for these very models, in bfloat16, with prompts as long as allowed:
what is compared is how plans put tables together, and how long the planner takes a prompt to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from contracts.catalogue import references
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Family, Mode
from contracts.memory.activation_tables import class_of, entry_of
from contracts.memory.activations import Activations
from contracts.memory.sizes import component
from contracts.storage import Storage
from counting.activations import count_activations
from tests.support.cascade import CASCADE
from tests.support.jobs import complete_job, make_job
from worker.pool.pool import Pool

#: Peak ÷ plan of a run that is planned well.
LOWEST, HIGHEST = 0.85, 1.15
SIDE = 128
#: Sides for families with a table of positions that is in no file: beside larger images it counts for little.
LARGER = {"pixart-alpha": 256}
EVERY_MODE = [(family.id, mode) for family in ALL_FAMILIES.values() for mode in family.modes]


@cache
def _counted(config: str) -> Activations:
    return entry_of(json.loads(json.dumps(count_activations(json.loads(config))))).activations


def _own_activations(config: Mapping[str, Any]) -> Activations:
    """What is counted for a component of this configuration, not for the nearest published one."""
    named = {"_class_name": class_of(config)} if "_class_name" in config else {}
    return _counted(json.dumps({**config, **named}, sort_keys=True))


@pytest.fixture(autouse=True)
def plans_of_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of their own, and references as small as these tests have diffusers scale them."""
    published = references._sides
    monkeypatch.setattr(component, "find_activations", _own_activations)
    monkeypatch.setattr(references, "_sides", lambda _area, ratio: published(64 * 64, ratio))


@pytest.fixture(scope="module")
def narrow(every_model: Catalogue) -> Catalogue:
    """All models in bfloat16."""
    rows = tuple(row.model_copy(update={"dtype": "bfloat16"}) for row in every_model.models)
    return every_model.model_copy(update={"models": rows})


def _texts(family: Family, mode: Mode) -> dict[str, Any]:
    """Prompts as long as allowed, where that makes a difference: CLIP and T5 read as many tokens of any."""
    length: Any = family.defaults.get("max_sequence_length")
    if {encoder.kind for encoder in family.text_encoders} != {"llm"}:
        return {}
    text = "7" * min(encoder.text_tokens(length) for encoder in family.text_encoders)  # digits are tokens
    return {"prompt": text} | ({"negative_prompt": text} if "negative_prompt" in family.modes[mode] else {})


#: Of models that only go on with the images of another one: its family, and further fields.
_LATER: Mapping[str, tuple[str, dict[str, Any]]] = {
    "deepfloyd-ii": ("deepfloyd", {"width": 64, "height": 64, "cascade": {"model": CASCADE, "steps": 2}}),
}


def _only(catalogue: Catalogue, *families: str) -> Catalogue:
    """A catalogue of these families' models and their ControlNets, so that no others are counted."""
    models = tuple(row for row in catalogue.models if row.family_spec.id in families)
    own = {row.family for row in models}
    controlnets = tuple(row for row in catalogue.controlnets if row.family in own)
    rows = {"models": models, "controlnets": controlnets, "loras": (), "ip_adapters": ()}
    return catalogue.model_copy(update={**rows, "default_model": models[0].id})


@pytest.mark.parametrize(("family", "mode"), EVERY_MODE)
def test_a_run_needs_what_was_planned_within_15_percent(
    family: str, mode: Mode, narrow: Catalogue, storage: Storage
) -> None:
    row = ALL_FAMILIES[family]
    base, fields = _LATER.get(family, (family, {}))
    if not row.fixed_size:
        fields = {**dict.fromkeys(("width", "height"), LARGER.get(family, SIDE)), **fields}
    fields |= {"strength": 0.6} if "strength" in row.modes[mode] else {}
    job = make_job(narrow, base, mode, **fields, **_texts(row, mode), num_inference_steps=2)
    pool = Pool(_only(narrow, family, base), device="cpu", budget_bytes=2**36)

    _, receipt = complete_job(job, pool, storage)

    memory = receipt.memory
    assert memory is not None
    assert memory.peak_bytes is not None
    ratio = memory.peak_bytes / memory.planned_bytes
    print(f"\n{family:22} {mode:20} {ratio:.2f}")
    assert {part.rpartition(": ")[2] for part in memory.plan.split("; ")} == {"all resident"}
    assert LOWEST < ratio < HIGHEST
