"""Models are made ready one after the other, each once, and one that cannot be holds nobody up."""

from __future__ import annotations

import threading

import pytest

from worker.preparations import Preparations


def test_each_model_is_made_ready_once_in_the_order_of_asking() -> None:
    gate, over, prepared = threading.Event(), threading.Event(), []

    def prepare(model: str) -> None:
        assert gate.wait(30)
        prepared.append(model)
        if model == "last":
            over.set()

    preparations = Preparations(prepare)
    askers = [threading.Thread(target=preparations.begin, args=["first"]) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    for model in ("second", "first", "last"):
        preparations.begin(model)
    assert (preparations.under_way, preparations.done) == (["first", "second", "last"], [])
    gate.set()
    assert over.wait(30)
    assert prepared == ["first", "second", "last"]


def test_a_model_that_cannot_be_made_ready_counts_as_done_and_the_next_one_follows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = threading.Event()

    def prepare(model: str) -> None:
        if model == "good":
            over.set()
            return
        raise OSError("/secret/path is away")

    preparations = Preparations(prepare)
    preparations.begin("bad")
    preparations.begin("good")
    assert over.wait(30)
    assert "bad" in preparations.done
    assert "bad could not be made ready: OSError" in caplog.text
    preparations.begin("bad")
    assert "bad" not in preparations.under_way
