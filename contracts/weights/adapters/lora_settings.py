"""The settings that a LoRA's trainer wrote into the file: how much the weights of each layer count.

diffusers writes peft's configuration as JSON under `lora_adapter_metadata` of a safetensors file, each setting
with its component before it: `unet.lora_alpha`. In peft the keys of its patterns are regular expressions. A file
comes from a client, and some expressions take for ever, so here they are names: whole, or the last parts of a
layer's name. Knows neither models nor tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from contracts.errors import AdapterRefused
from contracts.weights.formats.json_text import UnreadableJson, read_json

_KEY = "lora_adapter_metadata"
#: Characters of the JSON. The settings of the largest models, with a pattern for each layer, have about 100,000.
_MAX_CHARACTERS = 2**20
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
#: Settings of peft that contain names, or expressions instead; ours reads the first one only.
_NAMED_NUMBERS = ("alpha_pattern", "rank_pattern")
_NAMES = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "target_parameters")
#: Largest alpha, positive or negative. Trainers use 1 to a few hundred; a half-precision value ends at 65,504.
_MAX_ALPHA = 65_504.0


@dataclass(frozen=True)
class ScaleSettings:
    """Scaling of the weights of one component's layers: by alpha ÷ rank.

    Attributes:
        alpha: of all layers that `alphas` does not name; None: each layer's rank.
        alphas: by a layer's name, or the last parts of it; the first that matches counts.
        by_root: divide by the root of the rank instead (rsLoRA).
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    def alpha_of(self, layer: str) -> float | None:
        """Return the alpha of a layer, given its name with dots; None if the file names none."""
        endings = [layer, *(layer[dot + 1 :] for dot, character in enumerate(layer) if character == ".")]
        named = [ending for ending in endings if ending in self._order]
        return self.alphas[min(named, key=self._order.__getitem__)] if named else self.alpha

    def scale_of(self, layer: str, rank: int, own_alpha: float | None) -> float:
        """Return the trainer's scale of a layer: alpha ÷ rank, or ÷ its root; 1 without an alpha.

        Args:
            own_alpha: that the file has beside the layer's weights, which counts first.
        """
        alpha = self.alpha_of(layer) if own_alpha is None else own_alpha
        return 1.0 if alpha is None else alpha / (rank**0.5 if self.by_root else rank)

    @cached_property
    def _order(self) -> Mapping[str, int]:
        return {name: position for position, name in enumerate(self.alphas)}


def read_settings(metadata: Mapping[str, str]) -> dict[str, ScaleSettings]:
    """Read the settings of each component from the metadata of a safetensors file; empty where there are none.

    Raises:
        AdapterRefused: they are not JSON, too large, of a wrong type, or a pattern is more than a name.
    """
    text = metadata.get(_KEY)
    if text is None:
        return {}
    try:
        settings = read_json(text, _MAX_CHARACTERS)
    except UnreadableJson as error:
        raise AdapterRefused(f"{_KEY} in the file's metadata {error}") from None
    if not isinstance(settings, dict):
        raise AdapterRefused(f"{_KEY} in the file's metadata must be a JSON object")
    components: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        component, _, name = key.rpartition(".")
        components.setdefault(component, {})[name] = value
    return {component: _read_component(component, own) for component, own in components.items()}


def _read_component(component: str, settings: Mapping[str, object]) -> ScaleSettings:
    prefix = f"{component}." if component else ""
    for name in _NAMES:
        _check_names(f"{prefix}{name}", settings.get(name))
    alphas, _ = (_read_numbers(f"{prefix}{name}", settings.get(name)) for name in _NAMED_NUMBERS)
    alpha, by_root = settings.get("lora_alpha"), settings.get("use_rslora")
    if not isinstance(by_root, bool | None):
        raise _refused(f"{prefix}use_rslora", "true or false")
    return ScaleSettings(
        None if alpha is None else _read_number(f"{prefix}lora_alpha", alpha), alphas, bool(by_root)
    )


def _read_numbers(setting: str, value: object) -> dict[str, float]:
    if not isinstance(value, dict | None):
        raise _refused(setting, "an object of names and numbers")
    for name in value or {}:
        _check_name(setting, name)
    return {name: _read_number(f"{setting}.{name}", number) for name, number in (value or {}).items()}


def _read_number(setting: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_ALPHA:
        raise _refused(setting, f"a number from -{_MAX_ALPHA:g} to {_MAX_ALPHA:g}")
    return float(value)


def _check_names(setting: str, value: object) -> None:
    names = value if isinstance(value, list) else [] if value is None else [value]
    for name in names:
        _check_name(setting, name)


def _check_name(setting: str, name: object) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise AdapterRefused(
            f"{setting[:80]!r} in {_KEY} of the file's metadata must contain layers' names (letters, digits, "
            f"`.`, `-` and `_`), not patterns; got {str(name)[:80]!r}"
        )


def _refused(setting: str, allowed: str) -> AdapterRefused:
    return AdapterRefused(f"{setting[:80]!r} in {_KEY} of the file's metadata must be {allowed}")
