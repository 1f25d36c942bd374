"""Which models are replayed as a whole, by their default steps."""

from __future__ import annotations

from contracts.catalogue.rows.models import ModelSpec
from worker.pool.graph_limits import why_not_whole


def test_models_of_up_to_eight_default_steps_are_replayed_whole_and_others_are_told_why_not() -> None:
    def row(**defaults: int) -> ModelSpec:
        return ModelSpec(id="model", family="sdxl", source="somebody/model", defaults=dict(defaults))

    assert [why_not_whole(row(num_inference_steps=steps)) for steps in (1, 4, 8)] == ["", "", ""]
    assert why_not_whole(row(num_inference_steps=9)) == "9 steps by default, of at most 8"
    # The family's, where the row names none.
    assert why_not_whole(row()).endswith(" steps by default, of at most 8")
