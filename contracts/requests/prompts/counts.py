"""Counts what each text encoder reads of a job's prompts, and says which of them are too long.

The same for the API, which refuses such a request, and for the workers, which fail such a job where the API had no
tokenizers. Knows no tokenizer: the caller passes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contracts.catalogue.families import Family, TextEncoder
from contracts.errors import FieldProblem
from contracts.prompts.tokens import (
    MAX_WINDOWS,
    WINDOW_TOKENS,
    Tokenize,
    TokenUse,
    plain_chunks,
    token_use,
    windows_of,
)
from contracts.prompts.trigger_words import with_words
from contracts.requests.parameters import JobParameters


@dataclass(frozen=True)
class PromptCounts:
    """Tokens that each text encoder reads of a job's prompts, by the encoder's name.

    Attributes:
        negative: None without a negative prompt.
        problems: of prompts that are too long for the job.
    """

    prompt: dict[str, TokenUse]
    negative: dict[str, TokenUse] | None = None
    problems: tuple[FieldProblem, ...] = ()


def count_tokens(family: Family, job: JobParameters, tokenizers: Mapping[str, Tokenize]) -> PromptCounts:
    """Count the tokens of a job's prompts.

    Args:
        tokenizers: text encoder -> its tokenizer.
    """
    problems: list[FieldProblem] = []
    placed = {word: range(one.vectors or 1) for one in job.textual_inversions for word in one.words}
    tokenizers = {
        name: with_words(tokenize, placed if name in family.inversion_encoders else {})
        for name, tokenize in tokenizers.items()
    }

    def count(fields: Mapping[str, str]) -> dict[str, TokenUse]:
        uses = {}
        for encoder in family.text_encoders:
            field, tokenize = fields[encoder.name], tokenizers[encoder.name]
            use = uses[encoder.name] = _use(encoder, field, job, tokenize)
            if not encoder.pooled_only:
                problems.extend(_problems(family, encoder, field, job, use))
                problems.extend(_window_problems(encoder, field, job, tokenize, use))
        return uses

    prompt = count(
        {
            encoder.name: "prompt" if getattr(job, encoder.prompt) is None else encoder.prompt
            for encoder in family.text_encoders
        }
    )
    has_negative = job.negative_prompt is not None
    negative = count(dict.fromkeys(prompt, "negative_prompt")) if has_negative else None
    return PromptCounts(prompt, negative, tuple({problem.field: problem for problem in problems}.values()))


def _use(encoder: TextEncoder, field: str, job: JobParameters, tokenize: Tokenize) -> TokenUse:
    return token_use(
        encoder,
        job.chunks_of(field) or plain_chunks(""),
        tokenize,
        long_prompt=job.long_prompt or "truncate",
        max_sequence_length=job.max_sequence_length,
    )


def _problems(
    family: Family, encoder: TextEncoder, field: str, job: JobParameters, use: TokenUse
) -> Iterator[FieldProblem]:
    """Yield why this encoder may not read this prompt in part."""
    if job.long_prompt != "refuse" or use.used == use.given:
        return
    remedy = ", or set long_prompt to chunk"
    if encoder.kind != "clip":
        is_longest = job.max_sequence_length == family.max_sequence_length
        remedy = ", or set long_prompt to truncate" if is_longest else ", or raise max_sequence_length"
    if "truncate" not in family.long_prompts:
        remedy = ""
    message = (
        f"is too long for {encoder.name}: it has {use.given} tokens, of which {use.used} can be read; "
        f"shorten it{remedy}"
    )
    yield FieldProblem(field, message, f"0–{use.used} tokens")


def _window_problems(
    encoder: TextEncoder, field: str, job: JobParameters, tokenize: Tokenize, use: TokenUse
) -> Iterator[FieldProblem]:
    """Yield that a prompt would take too many windows."""
    if job.long_prompt != "chunk" or encoder.kind != "clip":
        return
    chunks = job.chunks_of(field) or ()
    if len(chunks) + use.given // WINDOW_TOKENS <= MAX_WINDOWS:
        return  # each chunk begins a window, and fills the others
    windows = len(windows_of(chunks, tokenize))
    if windows > MAX_WINDOWS:
        remedy = "set long_prompt to truncate" if len(chunks) == 1 else "write fewer BREAKs"
        message = (
            f"needs {windows} windows of {WINDOW_TOKENS} tokens in {encoder.name}, and {MAX_WINDOWS} are "
            f"allowed; shorten it, or {remedy}"
        )
        yield FieldProblem(field, message, f"0–{MAX_WINDOWS * WINDOW_TOKENS} tokens")
