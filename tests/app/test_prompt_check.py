"""The check of prompts: refused before anything is queued, in every dialect, without a word about how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.prompt_check import WordList
from app.settings import ApiSettings
from contracts.errors import SettingsError
from contracts.queue.client import JobQueue

Checked = Callable[..., Iterator[TestClient]]
WORDS = WordList(["star", "Red  Cross", "naïve", "", "…"])
TOLD = "was refused by the safety check of prompts; describe something else"


@contextmanager
def checked(api_settings: ApiSettings, **settings: object) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings.model_copy(update=settings)), raise_server_exceptions=False) as client:
        yield client


def test_a_refused_prompt_is_named_in_every_dialect_and_nothing_is_queued(
    api_settings: ApiSettings, queue: JobQueue
) -> None:
    with checked(api_settings, prompt_check="words", prompt_check_words=["star"]) as client:
        native = client.post("/v1/txt2img", json={"prompt": "a red Star"})
        assert native.status_code == 422
        assert [(error["field"], error["message"]) for error in native.json()["errors"]] == [("prompt", TOLD)]
        second = client.post("/v1/txt2img", json={"prompt": "a circle", "prompt_2": "star"})
        assert [error["field"] for error in second.json()["errors"]] == ["prompt_2"]
        weighted = {"prompt": "a s(ta:1.2)r", "prompt_syntax": "a1111"}
        for path, body in (
            ("/v1/txt2img", weighted),
            ("/v1/plan", {"task": "txt2img", "prompt": "star"}),
            ("/v1/images/generations", {"prompt": "star"}),
            ("/sdapi/v1/txt2img", {"prompt": "star"}),
            ("/hf/shapes-sdxl", {"inputs": "star"}),
            ("/replicate/v1/models/darkroom/shapes-sdxl/predictions", {"input": {"prompt": "star"}}),
        ):
            answer = client.post(path, json=body)
            assert TOLD in answer.text, path
        assert queue.connection.exists("darkroom:jobs") == 0
        allowed = client.post("/v1/txt2img", json={"prompt": "a starling", "negative_prompt": "star"})
        assert allowed.status_code == 202


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """An installed package with a check of prompts."""
    info = folder / "ours-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[darkroom.prompt_checks]\nours = ours_checks:make\n")
    (folder / "ours_checks.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


def test_a_check_of_an_installed_package_decides_by_its_score_and_its_failure_is_not_told(
    api_settings: ApiSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "class Check:\n    def score(self, prompt):\n"
        "        if 'crash' in prompt:\n            raise ValueError('/srv/secret')\n"
        "        return prompt.count('!') / 10\n\n\nmake = Check\n"
    )
    offer(tmp_path, monkeypatch, source)
    with checked(api_settings, prompt_check="ours", prompt_check_threshold=0.3) as client:
        assert client.post("/v1/txt2img", json={"prompt": "hey!!"}).status_code == 202
        assert client.post("/v1/txt2img", json={"prompt": "hey!!!"}).status_code == 422
        failed = client.post("/v1/txt2img", json={"prompt": "crash"})
    assert failed.status_code == 503
    assert "secret" not in failed.text


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"prompt_check": "words"}, "needs DARKROOM_API_PROMPT_CHECK_WORDS"),
        ({"prompt_check": "wrods"}, "no check is named wrods; one of off, words"),
    ],
)
def test_a_check_that_does_not_exist_is_told_at_the_start(
    chosen: dict[str, object], told: str, api_settings: ApiSettings
) -> None:
    with pytest.raises(SettingsError, match=told), checked(api_settings, **chosen):
        pass


@pytest.mark.parametrize(
    "prompt",
    [
        "a red star",
        "STAR",
        "star-shaped",
        "a_star_",
        "(star:1.3)",
        "s\u200bt\u00adar",  # invisible characters
        "ｓｔａｒ",  # full-width
        "stár",
        "a red, cross",
        "red\ncross",
        "naive",
    ],
)
def test_words_and_phrases_are_found_however_they_are_written(prompt: str) -> None:
    assert WORDS.score(prompt) == 1


@pytest.mark.parametrize("prompt", ["", "a starling", "restart", "red crossing", "cross red", "..."])
def test_parts_of_words_are_not(prompt: str) -> None:
    assert WORDS.score(prompt) == 0
