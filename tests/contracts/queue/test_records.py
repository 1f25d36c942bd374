"""Records of older releases: what they call differently is still read."""

from __future__ import annotations

from contracts.queue.records import Receipt, Weights
from tests.support.parameters import parameters


def test_a_receipt_of_an_older_release_keeps_its_deviations() -> None:
    new = Receipt(
        parameters=parameters(), seeds=[1], model=Weights(id="m", sha256="0"), deviations=["VAE in tiles"]
    )
    stored = new.model_dump(mode="json")
    old = {**stored, "departures": stored["deviations"]}
    del old["deviations"]

    assert stored["deviations"] == ["VAE in tiles"]
    assert Receipt.model_validate(old) == Receipt.model_validate(stored) == new
