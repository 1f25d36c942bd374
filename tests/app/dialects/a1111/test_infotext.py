"""Texts of parameters are read as the web UI reads them, in time that grows with their length."""

from __future__ import annotations

import pytest

from app.dialects.a1111.infotext import MAX_TEXT, read_infotext

PAIRS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"


def test_prompts_and_pairs_are_read() -> None:
    quoted = 'ControlNet 0: "Module: none, Model: \\"x\\", Weight: 1"'
    found = read_infotext(f"a red: circle,\n(two:1.2) lines\nNegative prompt: green,\nblue\n{PAIRS}, {quoted}")

    assert found["Prompt"] == "a red: circle,\n(two:1.2) lines"
    assert found["Negative prompt"] == "green,\nblue"
    assert (found["Steps"], found["Size-1"], found["Size-2"]) == ("20", "512", "768")
    assert found["ControlNet 0"] == 'Module: none, Model: "x", Weight: 1'


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("a red circle", "a red circle", ""),
        (f"a red circle\n{PAIRS}", "a red circle", ""),
        (f"Negative prompt: green\n{PAIRS}", "", "green"),
        (f"the words Negative prompt: are mine\n{PAIRS}", "the words Negative prompt: are mine", ""),
        (f"first\nsecond: line\n{PAIRS}", "first\nsecond: line", ""),
        ("", "", ""),
    ],
)
def test_a_text_with_less_is_read_too(text: str, prompt: str, negative: str) -> None:
    found = read_infotext(text)

    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["a", " ", 'a:"', "a: ", '\\"', 'ab:"\\"', "a,", "Negative prompt:"])
def test_a_hostile_text_takes_no_longer_than_its_length(piece: str) -> None:
    assert read_infotext(f"x\n{piece * MAX_TEXT}").keys() >= {"Prompt", "Negative prompt"}
