"""The trainer's settings in a LoRA file: names, never expressions, and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.errors import AdapterRefused
from contracts.weights.adapters.lora_settings import read_settings


def _read(settings: Any) -> Any:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    return read_settings({"format": "pt", "lora_adapter_metadata": text})


def test_a_file_without_settings_has_none() -> None:
    assert read_settings({"format": "pt", "ss_network_alpha": "8"}) == {}


def test_settings_of_a_component_say_the_alpha_of_each_layer() -> None:
    unet = _read(
        {
            "unet.r": 4,
            "unet.lora_alpha": 2,
            "unet.use_rslora": True,
            "unet.target_modules": ["to_q", "to_out.0"],
            "unet.init_lora_weights": True,
            "unet.alpha_pattern": {"attn1.to_q": 8, "to_q": 3, "mid.attn1.to_v": 5.5},
            "text_encoder.lora_alpha": 1,
        }
    )["unet"]
    assert unet.by_root
    assert unet.alpha_of("mid.attn1.to_q") == 8  # the first that matches
    assert unet.alpha_of("mid.attn2.to_q") == unet.alpha_of("to_q") == 3
    assert unet.alpha_of("mid.attn1.to_v") == 5.5
    assert unet.alpha_of("xto_q") == 2  # only whole parts of a name
    assert unet.alpha_of("other") == 2


def test_a_dot_in_a_name_is_a_dot() -> None:
    component = _read({"unet.alpha_pattern": {"attn1.to_q": 8}})["unet"]
    assert component.alpha_of("x.attn1.to_q") == 8
    assert component.alpha_of("x.attn1_to_q") is None


@pytest.mark.parametrize("setting", ["alpha_pattern", "rank_pattern"])
@pytest.mark.parametrize("pattern", ["([a-z0-9._]+)+!", "to_q|to_k", ".*", "^to_q", "", "a b", "to_q\n", "é"])
def test_a_pattern_that_is_more_than_a_name_is_refused(setting: str, pattern: str) -> None:
    with pytest.raises(AdapterRefused, match=f"unet.{setting}.*names .*not patterns"):
        _read({f"unet.{setting}": {"to_q": 1, pattern: 1}})


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "modules_to_save", "layers_pattern"])
@pytest.mark.parametrize("value", ["(a+)+!", ["to_q", "(a+)+!"], ["to_q", 1], {"a": 1}])
def test_a_list_of_modules_with_more_than_names_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(AdapterRefused, match=f"transformer.{setting}"):
        _read({f"transformer.{setting}": value})
    for names in (None, "all-linear", ["to_q"], []):
        assert _read({f"transformer.{setting}": names})["transformer"].alpha is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"unet.lora_alpha": NaN}', "NaN is not a number"),
        ('{"unet.lora_alpha": -Infinity}', "-Infinity is not a number"),
        ('{"unet.lora_alpha": 1e999}', "too large"),
        ('{"unet.lora_alpha": 1, "unet.lora_alpha": 2}', "the same name twice"),
        ('{"unet.lora_alpha": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"unet.x": ' + "[" * 9000 + "]" * 9000 + "}", "nested too deeply"),
        ('{"unet.x": [' + "[]," * 10_000 + "[]]}", "more than 10000 objects and lists"),
        ('{"unet.x": "' + "x" * 2**20 + '"}', "at most 1048576 are allowed"),
        ('{"unet.lora_alpha": true}', "'unet.lora_alpha'.*must be a number"),
        ('{"unet.lora_alpha": 1e300}', "a number from -65504 to 65504"),
        ('{"unet.lora_alpha": "8"}', "must be a number"),
        ('{"unet.alpha_pattern": {"to_q": null}}', "must be a number"),
        ('{"unet.alpha_pattern": ["to_q"]}', "must be an object"),
        ('{"unet.use_rslora": 1}', "must be true or false"),
        ('{"\\ud800.lora_alpha": "8"}', "must be a number"),
    ],
    ids=lambda value: value[:40],
)
def test_bad_settings_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason) as caught:
        _read(text)
    str(caught.value).encode()
    assert len(str(caught.value)) < 300


def test_many_patterns_are_looked_up_by_name() -> None:
    """One by one, 8,000 layers with 30,000 patterns would take minutes; the suite's time limit ends that."""
    component = _read({"unet.alpha_pattern": {f"blocks.{n}.to_q": n % 7 for n in range(30_000)}})["unet"]
    layers = [f"unet.blocks.{n}.to_q" for n in range(22_000, 30_000)]
    assert [component.alpha_of(layer) for layer in layers] == [n % 7 for n in range(22_000, 30_000)]
