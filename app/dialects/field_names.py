"""Errors about our fields, under the names by which a client of another API has sent them. Knows no dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, ModelUnavailable, NotAnImage

_NO_WORDS: Mapping[str, str] = {}
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


@contextmanager
def named_as_sent(name_of: Callable[[str], str], words: Mapping[str, str] = _NO_WORDS) -> Iterator[None]:
    """Rename the fields of errors that are raised in the block.

    Args:
        name_of: the path of one of our fields -> the path by which the client sent it.
        words: names of our fields that messages mention -> those of the client.
    """

    def rename(problem: FieldProblem) -> FieldProblem:
        message = _NAME.sub(lambda match: words.get(match[0], match[0]), problem.message)
        return FieldProblem(name_of(problem.field), message, problem.allowed)

    try:
        yield
    except InvalidRequest as error:
        # Two of our fields may be one of theirs, with one problem.
        problems = {(problem.field, problem.message): problem for problem in map(rename, error.problems)}
        more = error.count - len(error.problems)
        raise InvalidRequest(list(problems.values()), len(problems) + more) from None
    except (ImageTooLarge, NotAnImage, ModelUnavailable) as error:
        error.problem = rename(error.problem)
        raise
