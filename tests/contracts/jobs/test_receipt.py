"""Records of older releases: fields under their former names are still read."""

from __future__ import annotations

from contracts.jobs.receipt import Receipt, Weights
from tests.support.parameters import parameters


def test_the_deviations_of_an_older_releases_receipt_are_read() -> None:
    new = Receipt(
        parameters=parameters(), seeds=[1], model=Weights(id="m", sha256="0"), deviations=["VAE in tiles"]
    )
    stored = new.model_dump(mode="json")
    old = {**stored, "departures": stored["deviations"]}
    del old["deviations"]

    assert stored["deviations"] == ["VAE in tiles"]
    assert Receipt.model_validate(old) == Receipt.model_validate(stored) == new
