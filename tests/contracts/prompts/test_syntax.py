"""AUTOMATIC1111's prompt syntax: what each text means, and what is refused."""

from __future__ import annotations

import random

import pytest

from contracts.prompts.syntax import Chunks, escape, is_weighted, joined, parse

MEANINGS: list[tuple[str, Chunks]] = [
    ("a red circle", ((("a red circle", 1.0),),)),
    ("a (red:1.9) circle", ((("a ", 1.0), ("red", 1.9), (" circle", 1.0)),)),
    ("(a: 0.5 )", ((("a", 0.5),),)),
    ("((red)) [blue]", ((("red", 1.21), (" ", 1.0), ("blue", 0.909091)),)),
    ("((a:1.5) b:2)", ((("a", 3.0), (" b", 2.0)),)),
    ("(red:1) circle", ((("red circle", 1.0),),)),
    ("(red:0)", ((("red", 0.0),),)),
    (r"\(a\) \[b\] \\ \<lora:x:1>", ((("(a) [b] \\ <lora:x:1>", 1.0),),)),
    (r"(a \) b:1.2)", ((("a ) b", 1.2),),)),
    ("a (b c", ((("a ", 1.0), ("b c", 1.1)),)),
    ("a :) b", ((("a :) b", 1.0),),)),
    ("(cat:dog)", ((("cat:dog", 1.1),),)),
    ("a\\b", ((("a\\b", 1.0),),)),
    ("()", ((),)),
    ("a  BREAK b", ((("a", 1.0),), (("b", 1.0),))),
    ("(a BREAK b:1.2)", ((("a", 1.2),), (("b", 1.2),))),
    ("BREAK a", ((), (("a", 1.0),))),
    (r"\BREAK \AND break xBREAK band", ((("BREAK AND break xBREAK band", 1.0),),)),
]


@pytest.mark.parametrize(("text", "chunks"), MEANINGS)
def test_a_text_means_these_weighted_spans(text: str, chunks: Chunks) -> None:
    parsed = parse(text)

    assert parsed.chunks == chunks
    assert (parsed.problems, parsed.loras, parsed.source) == ((), (), text)


def test_loras_are_taken_out_of_the_text() -> None:
    parsed = parse("a <lora:one:0.8> b <lora:two> <lora:three:-1>")

    assert parsed.loras == (("one", 0.8), ("two", 1.0), ("three", -1.0))
    assert parsed.source == "a b"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("(a:inf)", "inf"),
        ("(a:NaN)", "NaN"),
        ("(a:-0.5)", "-0.5"),
        ("(a:1e9)", "1e9"),
        ("(a:5.1)", "5.1"),
        ("(a:1.2.3)", "1.2.3"),
        ("(" * 30 + "a" + ")" * 30, "multiply"),
        ("[a:b:0.5]", "between steps"),
        ("[(a:1.2)::5]", "between steps"),
        ("[a|b]", "between steps"),
        ("a AND b", "AND"),
        ("<hypernet:a:1>", "<hypernet:a:1>"),
        ("<lora:a:1:2>", "<lora:a:1:2>"),
        ("<lora:a:much>", "<lora:a:much>"),
        ("<lora:a:4.5>", "<lora:a:4.5>"),
        ("<lora::1>", "<lora::1>"),
        ("<lo<lora:x:1>ra:y:1>", "inside another"),
    ],
)
def test_a_text_without_a_meaning_is_a_problem_that_quotes_it(text: str, word: str) -> None:
    (problem,) = parse(text).problems

    assert word in problem


def test_a_plain_text_that_is_escaped_reads_as_itself() -> None:
    parts = ["(", ")", "[", "]", "\\", "<", ">", "lora", ":", "1.3", "BREAK", "AND", " ", "a", "B", "|", "\n"]
    drawn = random.Random(7)
    for _ in range(3000):
        text = "".join(drawn.choices(parts, k=drawn.randint(1, 12)))
        parsed = parse(escape(text))
        assert parsed.chunks == (((text, 1.0),),), text
        assert (parsed.problems, parsed.loras) == ((), ())


def test_what_is_stored_without_its_loras_reads_the_same_again() -> None:
    parts = ["(", ")", "[", "\\", "<lora:x:1>", ":1.3)", "BREAK", "AND", " ", "a", "RE"]
    drawn = random.Random(7)
    for _ in range(3000):
        parsed = parse("".join(drawn.choices(parts, k=drawn.randint(1, 12))))
        again = parse(parsed.source)
        assert parsed.problems or (again.chunks, again.loras) == (parsed.chunks, ())


@pytest.mark.parametrize("part", ["(", "[a", "<a:", " ", ": ", "BREAK ", "\\", "(a", "<lora:x:1>", "A", "(a:1.0)"])
def test_the_longest_prompt_is_read(part: str) -> None:
    parsed = parse((part * 10_000)[:10_000])

    assert parsed.chunks


def test_the_text_of_chunks_is_joined_with_spaces_and_weights_are_found() -> None:
    assert joined(parse("(a:1.2) b BREAK c").chunks) == "a b c"
    assert is_weighted(parse("(a:1.2)").chunks)
    assert not is_weighted(parse("a BREAK b").chunks)
