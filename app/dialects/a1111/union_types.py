"""The kinds of control of a union by the names that the web UI's ControlNet extension has for them.

Source: `ControlNetUnionControlType` in `internal_controlnet/external_code.py` of
https://github.com/Mikubill/sd-webui-controlnet. A row of the catalogue names its kinds in the operator's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from contracts.errors import FieldProblem

#: The extension's default: none is named.
UNKNOWN = "Unknown"
#: Name in the extension, folded -> words for it in names of kinds, beside the name itself.
_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "openpose": frozenset({"pose"}),
        "softedge": frozenset({"hed", "pidi", "scribble", "ted"}),
        "hardedge": frozenset({"canny", "lineart", "mlsd"}),
        "normalmap": frozenset({"normal"}),
        "segmentation": frozenset({"segment", "seg"}),
        "inpaint": frozenset({"repaint"}),
    }
)


def mode_of(control_type: str, modes: Sequence[str]) -> int | None:
    """Return the number of the kind that a unit names; None where the union has not exactly one of it.

    Args:
        control_type: `union_control_type` of the unit.
        modes: names of the union's kinds, such as `canny` or `hed/pidi/scribble/ted`.
    """
    folded = _fold(control_type)
    own = [number for number, mode in enumerate(modes) if _fold(mode) == folded]
    words = {folded, *_WORDS.get(folded, ())}
    meant = [number for number, mode in enumerate(modes) if words & set(re.split(r"[^a-z0-9]+", mode.lower()))]
    found = own or meant
    return found[0] if len(found) == 1 else None


def kind_problems(path: str, control_type: str, controlnet: str, modes: Sequence[str]) -> Iterator[FieldProblem]:
    """Yield a kind of control that a unit names, and that its ControlNet does not have.

    Args:
        path: of the unit's field.
        controlnet: id of its ControlNet.
    """
    if _fold(control_type) in ("", _fold(UNKNOWN)) or mode_of(control_type, modes) is not None:
        return
    got = f"got {control_type[:40]!r}"
    if modes:
        yield FieldProblem(path, f"must be one kind of the union {controlnet[:80]}, {got}", list(modes))
    else:
        yield FieldProblem(
            path, f"is for unions, and {controlnet[:80]} is not one: leave it out; {got}", [UNKNOWN]
        )


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
