"""The check of prompts, before anything is queued: by words, or by a check of another package. Knows no route."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from app.settings import ApiSettings
from contracts.errors import FieldProblem, SettingsError, Unavailable
from contracts.prompts.syntax import joined
from contracts.requests.fields import ImageFields
from contracts.requests.prompts.reading import read_prompts
from contracts.safety import PROMPT_CHECKS, PromptCheck, open_entry_point

_log = logging.getLogger(__name__)
#: What a model is kept away from may be anything.
_UNCHECKED = "negative_prompt"
_SEPARATORS = re.compile(r"[\W_]+")


class WordList:
    """Check by a list of words and phrases, which finds what is written plainly, and understands nothing.

    Finds whole ones, in any case, with any punctuation between and invisible characters within them.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._phrases = [f" {phrase} " for phrase in map(_plain, words) if phrase]

    def score(self, prompt: str) -> float:
        """Return 1 if any of them is in the prompt, else 0."""
        text = f" {_plain(prompt)} "
        return float(any(phrase in text for phrase in self._phrases))


def _plain(text: str) -> str:
    """Words in lower case with one space between them, without accents, and full-width letters as plain ones."""
    letters = (
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if unicodedata.category(letter) not in ("Cf", "Mn")
    )
    return _SEPARATORS.sub(" ", "".join(letters).casefold()).strip()


class PromptGuard:
    """The check that the settings name, and what a refused request is told."""

    def __init__(self, check: PromptCheck, threshold: float) -> None:
        """`threshold`: a prompt is refused from this score on."""
        self._check, self._threshold = check, threshold

    def problems(self, request: ImageFields) -> Iterator[FieldProblem]:
        """Yield a problem for each prompt that is refused: as it was sent, or as the encoders read it.

        Raises:
            Unavailable: the check fails.
        """
        read = read_prompts(request)
        for name, text in read.texts.items():
            if name == _UNCHECKED:
                continue
            texts = {text, joined(read.chunks[name])} if name in read.chunks else {text}
            yield from self.text_problems((name, one) for one in sorted(texts))

    def text_problems(self, texts: Iterable[tuple[str, str]]) -> Iterator[FieldProblem]:
        """Yield a problem for each field, by its path, of which a text is refused; raises as `problems`."""
        refused = dict.fromkeys(field for field, text in texts if self._score(text) >= self._threshold)
        for field in refused:
            yield FieldProblem(field, "was refused by the safety check of prompts; describe something else")

    def _score(self, text: str) -> float:
        try:
            return self._check.score(text)
        except Exception as error:
            _log.exception("the safety check of prompts failed")
            raise Unavailable("the safety check of prompts is unavailable") from error


def open_prompt_check(settings: ApiSettings) -> PromptGuard | None:
    """Return the check of prompts; None where they are not checked.

    Raises:
        SettingsError: no check has this name, or its list of words is empty.
    """
    name = settings.prompt_check
    if name == "off":
        return None
    if name == "words":
        if not settings.prompt_check_words:
            raise SettingsError("DARKROOM_API_PROMPT_CHECK=words needs DARKROOM_API_PROMPT_CHECK_WORDS")
        return PromptGuard(WordList(settings.prompt_check_words), settings.prompt_check_threshold)
    check = open_entry_point(PROMPT_CHECKS, name, "DARKROOM_API_PROMPT_CHECK", "off, words")
    return PromptGuard(check, settings.prompt_check_threshold)
