"""What a worker's start asks of each row: nothing is wrong with one that loads, whatever its family."""

from __future__ import annotations

from contracts.catalogue.catalogue import Catalogue
from worker.pool.pool import Pool


def test_nothing_is_wrong_with_the_models_of_any_family_and_what_they_are_used_with(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu")
    names = [name for name in pool.fetcher.names_here() if not name.startswith(("lora:", "textual_inversion:"))]
    assert {catalogue.model(name).family for name in names if ":" not in name} >= {"sdxl", "sd3", "flux", "sana"}
    for name in names:
        pool.rehearse(name)
    assert pool.warm == []
