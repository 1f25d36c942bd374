"""The two tokenizers: whole words of the grammar, and no prompt refused."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer, T5Tokenizer

from models.training.data.captions import words
from models.training.networks.tokenizer import build_clip, build_t5

PROMPTS = ("a red circle on a blue background", "RED  Circle!", "ünïcode 日本 🙂 qzx 42", "")


@pytest.fixture(scope="module")
def clip() -> CLIPTokenizer:
    return build_clip()


@pytest.fixture(scope="module")
def t5() -> T5Tokenizer:
    return build_t5()


def test_every_word_of_the_grammar_is_one_token(clip: CLIPTokenizer, t5: T5Tokenizer) -> None:
    assert [word for word in words() if len(clip(word).input_ids) != 3] == []
    assert [word for word in words() if len(t5(word).input_ids) != 2] == []


@pytest.mark.parametrize("prompt", PROMPTS)
def test_no_prompt_is_refused(clip: CLIPTokenizer, t5: T5Tokenizer, prompt: str) -> None:
    assert len(clip(prompt, padding="max_length", max_length=77, truncation=True).input_ids) == 77
    assert len(t5(prompt, padding="max_length", max_length=64, truncation=True).input_ids) == 64


def test_clip_does_not_care_about_case_and_spells_what_it_does_not_know(clip: CLIPTokenizer) -> None:
    assert clip("Red CIRCLE").input_ids == clip("red circle").input_ids
    assert "ünïcode" in clip.decode(clip("ünïcode").input_ids)


def test_both_read_back_from_a_folder_without_sentencepiece(
    clip: CLIPTokenizer, t5: T5Tokenizer, tmp_path: Path
) -> None:
    clip.save_pretrained(tmp_path / "clip")
    t5.save_pretrained(tmp_path / "t5")
    assert not list(tmp_path.rglob("*.model"))
    for prompt in PROMPTS:
        assert CLIPTokenizer.from_pretrained(tmp_path / "clip")(prompt).input_ids == clip(prompt).input_ids
        assert T5Tokenizer.from_pretrained(tmp_path / "t5")(prompt).input_ids == t5(prompt).input_ids
