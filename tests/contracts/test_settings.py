"""The sources of settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import SharedSettings, describe


def test_a_setting_is_read_from_a_file_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:password@redis:6379/0\n", encoding="utf-8")
    monkeypatch.setenv("DARKROOM_REDIS_URL_FILE", str(secret))
    assert SharedSettings().redis_url == "redis://:password@redis:6379/0"


def test_an_environment_variable_overrides_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://file:6379/0", encoding="utf-8")
    monkeypatch.setenv("DARKROOM_REDIS_URL_FILE", str(secret))
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://environment:6379/0")
    assert SharedSettings().redis_url == "redis://environment:6379/0"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_RESULT_TTL_SECONDS", "")
    assert SharedSettings().result_ttl_seconds == 86_400


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="DARKROOM_REDIS_URL_FILE"):
        SharedSettings()


def test_every_setting_has_a_description() -> None:
    described = describe(SharedSettings)
    assert "DARKROOM_REDIS_URL" in described
    assert all(len(line.split()) > 3 for line in described.splitlines())
