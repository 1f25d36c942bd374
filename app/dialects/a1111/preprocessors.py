"""Preprocessors under the names of the web UI's ControlNet extension, and its sliders as our options.

Source: `scripts/preprocessor/` of https://github.com/Mikubill/sd-webui-controlnet. Queues and makes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.catalogue.rows.preprocessors import MAX_RESOLUTION, MIN_RESOLUTION, PREPROCESSORS, RESOLUTION

#: What clients write for no model and no preprocessor.
NOTHING = frozenset({"", "none", "null"})
#: What the extension takes where a client names no resolution.
_RESOLUTION = 512


@dataclass(frozen=True)
class Module:
    """A preprocessor of the extension.

    Attributes:
        names: its own, the first being the one that lists show.
        preprocess: name of ours.
        sliders: our options in the places of `threshold_a` and `threshold_b`.
    """

    names: tuple[str, ...]
    preprocess: str
    sliders: tuple[str, ...] = ()


#: Ours may be named as well.
MODULES = (
    Module(("canny",), "canny", ("low_threshold", "high_threshold")),
    Module(("lineart_standard", "lineart_standard (from white bg & black line)"), "lineart"),
    Module(("scribble_xdog",), "scribble", ("threshold",)),
    Module(("threshold",), "threshold", ("threshold",)),
    Module(("invert", "invert (from white bg & black line)"), "invert"),
    Module(("blur_gaussian",), "blur", ("sigma",)),
    Module(("tile_resample",), "tile", ("factor",)),
    Module(("t2ia_color_grid", "color"), "color"),
    Module(("recolor_luminance",), "gray", ("gamma",)),
    Module(("shuffle",), "shuffle"),
)
_BY_NAME: Mapping[str, Module] = {
    name: module for module in MODULES for name in (*module.names, module.preprocess)
}
MODULE_NAMES = [module.names[0] for module in MODULES]


def find_module(name: str) -> Module | None:
    """Return the preprocessor that a client names, in any case; None if there is none of this name."""
    return _BY_NAME.get(name.strip().lower())


def preprocess_of(name: str) -> str | None:
    """Return our name of a preprocessor; None for none; a name that is not known stays, and is refused later."""
    if name.strip().lower() in NOTHING:
        return None
    module = find_module(name)
    return name if module is None else module.preprocess


def options_of(name: str, resolution: float | None, thresholds: Iterable[float | None]) -> dict[str, float]:
    """Return our options for the values that a client sends.

    As in the extension, a slider outside its range is as if it were not sent: clients send -1, or one for all.

    Args:
        resolution: None: the output decides.
        thresholds: `threshold_a` and `threshold_b`; None where one was not sent.
    """
    module = find_module(name)
    if module is None:
        return {}
    row, options = PREPROCESSORS[module.preprocess], dict[str, float]()
    for id, value in zip(module.sliders, thresholds, strict=False):
        option = row.option(id)
        if option is not None and value is not None and option.minimum <= value <= option.maximum:
            options[id] = round(value) if option.is_integer else value
    if options.get("low_threshold", 0) > options.get("high_threshold", 255):
        options["low_threshold"], options["high_threshold"] = options["high_threshold"], options["low_threshold"]
    if resolution is not None:
        wanted = _RESOLUTION if resolution <= 0 else round(resolution)
        options[RESOLUTION.id] = min(max(wanted, MIN_RESOLUTION), MAX_RESOLUTION)
    return options


def sent_option(name: str, option: str) -> str:
    """Return the field in which clients send one of our options."""
    module = find_module(name)
    if module is None or option not in module.sliders:
        return "processor_res" if option == RESOLUTION.id else "module"
    return ("threshold_a", "threshold_b")[module.sliders.index(option)]


def module_details() -> dict[str, Any]:
    """Return what `/controlnet/module_list` says of each: its sliders, the resolution's first."""
    return {module.names[0]: _detail(module) for module in MODULES} | {"none": _NO_DETAIL}


_NO_DETAIL: Mapping[str, Any] = {"model_free": False, "sliders": []}


def _detail(module: Module) -> dict[str, Any]:
    options = [PREPROCESSORS[module.preprocess].option(id) for id in (RESOLUTION.id, *module.sliders)]
    return {
        "model_free": False,
        "sliders": [
            {
                "name": option.id,
                "value": _RESOLUTION if option.default is None else option.default,
                "min": option.minimum,
                "max": option.maximum,
                "step": 1 if option.is_integer else 0.01,
            }
            for option in options
            if option is not None
        ],
    }
