r"""Reads prompts in the syntax of AUTOMATIC1111's web UI into weighted spans and LoRAs; a pure function.

`(word)` weighs a word 1.1 times, `[word]` 1/1.1 times, `(word:1.3)` 1.3 times; nested brackets multiply. `BREAK`
starts a new window of the text encoders. `<lora:NAME:SCALE>` applies a LoRA. `\(`, `\)`, `\[`, `\]`, `\\`, `\<`,
`\BREAK` and `\AND` are plain text. As in the web UI, a bracket that is never closed acts up to the end, and a
closing bracket without an opening one is text. What the web UI gives another meaning (prompt editing, `AND`, other
tags) is a problem, never plain text.

Source: `modules/prompt_parser.py` and `modules/extra_networks.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui. Knows no tokenizer and no catalogue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise

#: A text and its weight.
Span = tuple[str, float]
#: The parts of a prompt between its BREAKs, each as spans.
Chunks = tuple[tuple[Span, ...], ...]

BRACKET_FACTOR = 1.1
MAX_WEIGHT = 5.0
MAX_LORA_SCALE = 4.0
#: Problems reported of one prompt.
_MAX_PROBLEMS = 3
_TAG = re.compile(r"\\.| ?<(?P<kind>\w+):(?P<arguments>[^<>]*)>", re.DOTALL)
_NUMBER = r"(?i:[+-]?(?:[0-9.]+(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan))"
_TOKEN = re.compile(
    rf"""\\(?P<escaped>BREAK\b|AND\b|[\\()\[\]<])
    |(?P<open>[(\[])
    |:\s*(?P<weight>{_NUMBER})\s*\)
    |(?P<close>[)\]])
    |(?P<BREAK>\bBREAK\b)
    |(?P<AND>\bAND\b)
    |[^\\()\[\]:AB]+|.""",
    re.DOTALL | re.VERBOSE,
)
_EDITING = re.compile(r":\s*[0-9.]+\s*$")
_SPECIAL = re.compile(r"[\\()\[\]]|<(?=\w+:[^<>]*>)|\bBREAK\b|\bAND\b")


@dataclass(frozen=True)
class ParsedPrompt:
    """One prompt as it was read.

    Attributes:
        source: the text in this syntax without its LoRAs, from which parsing gives the same chunks.
        chunks: never empty; a chunk may have no spans.
        loras: name and scale of each LoRA.
        problems: what is wrong with the text, in words for the client.
    """

    source: str
    chunks: Chunks
    loras: tuple[tuple[str, float], ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _Group:
    """Content of one bracket: texts, groups, and None for a BREAK."""

    bracket: str = ""
    factor: float = 1.0
    position: int = 0
    children: list[str | _Group | None] = field(default_factory=list)


def parse(text: str) -> ParsedPrompt:
    """Read a prompt. One with problems has the chunks of what could be read."""
    problems: list[str] = []
    loras: list[tuple[str, float]] = []
    source = _TAG.sub(lambda match: _read_tag(match, loras, problems), text)
    if not problems and any(match["kind"] for match in _TAG.finditer(source)):
        problems.append("has a tag <…> inside another; write each on its own")
    root = _group(source, problems)
    chunks = _without_outer_spaces([_merged(chunk) for chunk in _flatten(root, problems)])
    return ParsedPrompt(source, chunks, tuple(loras), tuple(problems[:_MAX_PROBLEMS]))


def escape(text: str) -> str:
    """Return a text that reads as this plain text in the syntax: `parse` gives it back as one span of weight 1."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def joined(chunks: Chunks) -> str:
    """The text of the chunks without weights; a BREAK becomes a space."""
    return " ".join("".join(text for text, _ in chunk) for chunk in chunks)


def is_weighted(chunks: Chunks) -> bool:
    """Whether any span has another weight than 1."""
    return any(weight != 1 for chunk in chunks for _, weight in chunk)


def _read_tag(match: re.Match[str], loras: list[tuple[str, float]], problems: list[str]) -> str:
    kind, arguments = match["kind"], match["arguments"]
    if kind is None:
        return match[0]  # an escaped character
    name, separator, scale = arguments.partition(":")
    tag = match[0].strip()
    number = 1.0 if not separator else _number(scale.strip())
    if kind != "lora" or not name.strip():
        problems.append(f"has {tag[:60]!r}: of such tags only <lora:NAME:SCALE> works; write \\< for plain text")
    elif number is None or abs(number) > MAX_LORA_SCALE:
        limit = f"−{MAX_LORA_SCALE:g} to {MAX_LORA_SCALE:g}"
        problems.append(f"has {tag[:60]!r}: the scale must be one number from {limit}")
    else:
        loras.append((name.strip(), number))
    return ""


def _number(text: str) -> float | None:
    """The finite number that a text is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _group(source: str, problems: list[str]) -> _Group:
    """Return the text as a tree of brackets."""
    root = _Group()
    stack = [root]
    for match in _TOKEN.finditer(source):
        here, kind = stack[-1], match.lastgroup
        if kind == "escaped":
            here.children.append(match["escaped"])
        elif kind == "open":
            opened = _Group(match[0], BRACKET_FACTOR if match[0] == "(" else 1 / BRACKET_FACTOR, match.start())
            here.children.append(opened)
            stack.append(opened)
        elif kind == "weight" and here.bracket == "(":
            here.factor = _weight(match["weight"], problems)
            stack.pop()
        elif kind == "close" and here.bracket == {")": "(", "]": "["}[match[0]]:
            _check_editing(stack.pop(), problems)
        elif kind == "BREAK":
            here.children.append(None)
        else:
            if kind == "AND":
                problems.append("has AND, which is not supported; write 'and', or \\AND for the word itself")
            here.children.append(match[0])
    return root


def _weight(text: str, problems: list[str]) -> float:
    number = _number(text)
    if number is not None and 0 <= number <= MAX_WEIGHT:
        return number
    advice = r"write \( and \) for brackets that are text"
    problems.append(
        f"has the weight {text[:20]!r}, and a weight must be a number from 0 to {MAX_WEIGHT:g}; {advice}"
    )
    return 1.0


def _check_editing(group: _Group, problems: list[str]) -> None:
    """Refuse what the web UI reads as another prompt at another step: `[a:b:0.5]` and `[a|b]`."""
    text = "".join(child for child in group.children if isinstance(child, str))
    if group.bracket == "[" and ("|" in text or _EDITING.search(text)):
        shown = f"[{text[:40]}]"
        problems.append(
            rf"has {shown!r}: prompts that change between steps are not supported; write \[ and \] for plain text"
        )


def _flatten(root: _Group, problems: list[str]) -> list[list[Span]]:
    """Return the spans of each chunk with the products of their brackets' factors."""
    chunks: list[list[Span]] = [[]]
    stack: list[tuple[Iterator[str | _Group | None], float]] = [(iter(root.children), 1.0)]
    while stack:
        children, weight = stack[-1]
        child = next(children, root)
        if child is root:
            stack.pop()
        elif child is None:
            chunks.append([])
        elif isinstance(child, _Group):
            stack.append((iter(child.children), weight * child.factor))
        elif weight > MAX_WEIGHT:
            problems.append(
                f"has brackets whose weights multiply to {weight:.3g}; at most {MAX_WEIGHT:g} is allowed"
            )
            stack.clear()
        else:
            chunks[-1].append((str(child), round(weight, 6)))
    return chunks


def _merged(chunk: list[Span]) -> list[Span]:
    """Join neighbours of equal weight."""
    runs = groupby(chunk, key=lambda span: span[1])
    return [("".join(text for text, _ in spans), weight) for weight, spans in runs]


def _without_outer_spaces(chunks: list[list[Span]]) -> Chunks:
    """Strip the spaces round each BREAK."""
    for before, after in pairwise(chunks):
        if before:
            before[-1] = (before[-1][0].rstrip(), before[-1][1])
        if after:
            after[0] = (after[0][0].lstrip(), after[0][1])
    return tuple(tuple(span for span in chunk if span[0]) for chunk in chunks)
