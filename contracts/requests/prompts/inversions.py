"""The textual inversions of a request: those that it lists and, in A1111's syntax, those that its prompts name.

Reads the catalogue and headers; knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from contracts.catalogue.catalogue import Catalogue, TextualInversionSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, NotFound
from contracts.prompts.syntax import joined
from contracts.prompts.trigger_words import words_in
from contracts.requests.entry_parameters import TextualInversionParameters
from contracts.requests.fields import MAX_INVERSIONS, PROMPT_FIELDS, ImageFields
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.reading import read_prompts
from contracts.weights.adapters.inversion_models import find_inversion_facts


def with_inversions(job: JobParameters, model: ModelSpec, catalogue: Catalogue) -> JobParameters:
    """Return a job's parameters with the textual inversions of its prompts, the catalogue's files described.

    Args:
        job: of a request that passed `inversion_problems`; its own list has only names.
    """
    if not catalogue.textual_inversions:
        return job
    texts = [text for field in PROMPT_FIELDS if (text := job.text_of(field)) is not None]
    found = []
    for row in _used([one.name for one in job.textual_inversions], texts, job.prompt_syntax, model, catalogue):
        facts = find_inversion_facts(catalogue, row)
        found.append(
            TextualInversionParameters(
                name=row.id, words=row.words, vectors=None if facts is None else facts.vectors
            )
        )
    return job.model_copy(update={"textual_inversions": tuple(found)})


def inversion_problems(request: ImageFields, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """Yield what is wrong with the textual inversions that a request lists, or with their number."""
    names = [row.id for row in catalogue.textual_inversions if row.suits(model)]
    texts = list(_texts(request).values())
    seen: dict[str, str] = {}
    for index, one in enumerate(request.textual_inversions):
        field = f"textual_inversions.{index}.name"
        try:
            row = catalogue.textual_inversion(one.name)
        except NotFound:
            yield FieldProblem(field, f"unknown textual inversion {one.name[:80]!r}", names)
            continue
        if (message := row.misfit(model)) is not None:
            yield FieldProblem(field, message, names)
        elif not any(words_in(text, row.words) for text in texts):
            either = " or ".join(repr(word) for word in row.words)
            yield FieldProblem(
                field, f"has no effect: no prompt has the word {either}; write it where it should act"
            )
        for word in row.words:
            other = seen.setdefault(word.casefold(), row.id)
            if other != row.id:
                yield FieldProblem(
                    field, f"{row.id} and {other} stand for the same word {word!r}; name one of them"
                )
        if [other.name for other in request.textual_inversions[:index]].count(row.id):
            yield FieldProblem(field, f"repeats {row.id}; name it once")
    listed = [one.name for one in request.textual_inversions]
    used = _used(listed, texts, request.prompt_syntax, model, catalogue)
    if len(used) > MAX_INVERSIONS:
        message = f"has the words of {len(used)} textual inversions; at most {MAX_INVERSIONS} are allowed"
        yield FieldProblem("prompt", message)


def names_any(request: ImageFields) -> bool:
    """Whether a request may have textual inversions: it lists some, or each word of its prompts may be one."""
    return bool(request.textual_inversions) or request.prompt_syntax == "a1111"


def _texts(request: ImageFields) -> Mapping[str, str]:
    """What the encoders read of each prompt."""
    read = read_prompts(request)
    return {**read.texts, **{name: joined(chunks) for name, chunks in read.chunks.items()}}


def _used(
    listed: Sequence[str], texts: Sequence[str], syntax: str, model: ModelSpec, catalogue: Catalogue
) -> list[TextualInversionSpec]:
    """The rows that act, listed ones first; of two with one word the first."""
    if not model.family_spec.inversion_encoders:
        return []
    suited = [row for row in catalogue.textual_inversions if row.suits(model)]
    rows = [row for name in dict.fromkeys(listed) for row in suited if row.id == name]
    if syntax == "a1111":
        rows += [row for row in suited if row.id not in listed]
    owners: dict[str, TextualInversionSpec] = {}
    for row in rows:
        for word in row.words:
            owners.setdefault(word.casefold(), row)
    found = {owners[word].id for text in texts for word in words_in(text, owners)}
    return [row for row in rows if row.id in found]
