"""Reads the prompts of a request in the syntax that it names: what the encoders read, its LoRAs, its problems.

Part of the checks in `validation.py` and of the defaults in `defaults.py`. Knows no tokenizer: how many tokens a
prompt has is counted later (`contracts.prompts.tokens`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contracts.catalogue.families import Family
from contracts.errors import FieldProblem
from contracts.prompts.syntax import Chunks, ParsedPrompt, is_weighted, joined, parse
from contracts.prompts.tokens import plain_chunks
from contracts.requests.entries import Lora
from contracts.requests.fields import PROMPT_FIELDS, ImageFields

_MAX_LORAS = 8


@dataclass(frozen=True)
class ReadPrompts:
    """The prompts of a request as they were read.

    Attributes:
        texts: field -> text without the LoRAs in it, as it is stored.
        chunks: field -> what the encoders read, where that is more than the text.
        loras: field path -> LoRA, of the request's list and of its prompt.
    """

    texts: Mapping[str, str]
    chunks: Mapping[str, Chunks]
    loras: tuple[tuple[str, Lora], ...]
    problems: tuple[FieldProblem, ...] = ()


def read_prompts(request: ImageFields) -> ReadPrompts:
    """Read the prompts of a request; a plain one's are what they are."""
    texts = {name: text for name in PROMPT_FIELDS if (text := vars(request).get(name)) is not None}
    listed = tuple((f"loras.{index}.name", lora) for index, lora in enumerate(request.loras))
    if request.prompt_syntax == "plain":
        return ReadPrompts(texts, {}, listed)
    parsed = {name: parse(text) for name, text in texts.items()}
    in_prompt = parsed["prompt"].loras if "prompt" in parsed else ()
    return ReadPrompts(
        {name: prompt.source for name, prompt in parsed.items()},
        {name: prompt.chunks for name, prompt in parsed.items() if prompt.chunks != plain_chunks(prompt.source)},
        (*listed, *(("prompt", Lora(name=name, scale=scale)) for name, scale in in_prompt)),
        tuple(_syntax_problems(parsed)),
    )


def _syntax_problems(parsed: Mapping[str, ParsedPrompt]) -> Iterator[FieldProblem]:
    for name, prompt in parsed.items():
        yield from (FieldProblem(name, problem) for problem in prompt.problems)
        if prompt.loras and name != "prompt":
            yield FieldProblem(name, "names a LoRA, and LoRAs are read from prompt only; move it there")
        if name != "negative_prompt" and not prompt.source.strip() and prompt.loras:
            yield FieldProblem(name, "has no text beside its LoRAs; say what the image shows")
        elif name != "negative_prompt" and prompt.source.strip() and not joined(prompt.chunks).strip():
            yield FieldProblem(name, "has only brackets and BREAKs; say what the image shows")


def prompt_problems(request: ImageFields, family: Family, long_prompt: object) -> Iterator[FieldProblem]:
    """Yield what is wrong with the prompts, and what in them cannot act on this family.

    Args:
        long_prompt: the request's value, else the model's default.
    """
    read = read_prompts(request)
    yield from read.problems
    if len(read.loras) > _MAX_LORAS:
        message = f"names LoRAs, {len(read.loras)} together with those in loras; at most {_MAX_LORAS} are allowed"
        yield FieldProblem("prompt", message)
    if family.long_prompts and long_prompt not in family.long_prompts:
        allowed = ", ".join(family.long_prompts)
        message = f"{long_prompt} is not available for {family.id}, whose encoders have no windows; use {allowed}"
        yield FieldProblem("long_prompt", message, list(family.long_prompts))
    for name, chunks in read.chunks.items():
        if len(chunks) > 1 and not family.chunks_prompts:
            yield FieldProblem(name, f"has BREAK, which has no effect on {family.id}; remove it, or write \\BREAK")
        elif len(chunks) > 1 and long_prompt != "chunk":
            yield FieldProblem(name, "has BREAK, which needs long_prompt chunk; set that, or write \\BREAK")
        if is_weighted(chunks) and not _can_weigh(name, read, family):
            remedy = f"put them into {field}" if (field := _weighable_field(family)) else "write the words alone"
            yield FieldProblem(name, f"has weights, which have no effect on {family.id} here; {remedy}")


def _can_weigh(name: str, read: ReadPrompts, family: Family) -> bool:
    """Whether an encoder reads this prompt whose sequence reaches the denoiser."""
    readers = [encoder for encoder in family.text_encoders if encoder.can_weigh]
    if name == "negative_prompt":
        return bool(readers)
    return any(name == (encoder.prompt if encoder.prompt in read.texts else "prompt") for encoder in readers)


def _weighable_field(family: Family) -> str | None:
    return next((encoder.prompt for encoder in family.text_encoders if encoder.can_weigh), None)
