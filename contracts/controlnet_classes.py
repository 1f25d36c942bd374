"""What the `config.json` of a ControlNet says: its class, and how many kinds of control a union has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_PLAIN, _UNION = "ControlNetModel", "ControlNetUnionModel"
#: Class of a published union, as its authors call it -> as diffusers does.
CLASSES_IN_DIFFUSERS: Mapping[str, str] = MappingProxyType({"ControlNetModel_Union": _UNION})
#: Class that may be a union -> the entry of its configuration with the number of its kinds of control, and what
#: diffusers (0.42) takes where that is missing.
_MODE_COUNTS = MappingProxyType({"FluxControlNetModel": ("num_mode", 0), _UNION: ("num_control_type", 6)})


def class_of_controlnet(config: Mapping[str, Any]) -> str:
    """The class of diffusers that a `config.json` names; empty where it names none."""
    named = config.get("_class_name")
    return CLASSES_IN_DIFFUSERS.get(named, named) if isinstance(named, str) else ""


def modes_of_controlnet(config: Mapping[str, Any]) -> Any:
    """The number of kinds of control in a union's `config.json`, as it stands there; 0 for other ControlNets."""
    entry, usual = _MODE_COUNTS.get(class_of_controlnet(config), ("", 0))
    return config.get(entry, usual) or 0


def modes_remedy(found: str, needed: str) -> str:
    """The end of a sentence that says that a ControlNet is of one class, and its row needs another."""
    if found == _UNION and needed == _PLAIN:
        return ": it is a union, whose kinds of control must be named in `modes` of the row"
    return ": it has one kind of control; remove `modes` from the row" if needed == _UNION else ""
