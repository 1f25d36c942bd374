"""The shipped model that edits changes what it is told to, and keeps the rest.

Its card has the figures of the fixed test edits; these bars are a little below them, since another machine's last
bits may turn an image.
"""

from functools import cache

from models.training.data.edits import KINDS, fixed_edits
from models.training.judging.edits import COUNT, EditSample, open_edits, sample

LEAST_BOTH = 0.7
LEAST_BOTH_OF_A_KIND = 0.5


@cache
def made() -> list[EditSample]:
    return sample(open_edits(), fixed_edits(COUNT))


def share(samples: list[EditSample]) -> float:
    return sum(s.shares[-1] for s in samples) / len(samples)


def test_edits_change_what_is_asked_for_and_keep_the_rest() -> None:
    assert share(made()) >= LEAST_BOTH


def test_no_kind_of_edit_is_far_behind_the_others() -> None:
    shares = {kind: share([s for s in made() if s.edit.attribute == kind]) for kind in KINDS}
    assert min(shares.values()) >= LEAST_BOTH_OF_A_KIND, shares
