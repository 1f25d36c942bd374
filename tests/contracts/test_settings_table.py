"""`darkroom settings`: values, where they come from, and what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import ApiSettings
from contracts.settings import SharedSettings
from contracts.settings_table import Table
from dispatcher.settings import WebhookSettings
from worker.settings import WorkerSettings


def _lines(described: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in described.splitlines() if " DARKROOM_" in line}


def test_every_setting_has_a_row_and_a_description() -> None:
    for settings in (SharedSettings, ApiSettings, WorkerSettings, WebhookSettings):
        lines = _lines(Table().describe(settings))
        fields = {name: field for name, field in settings.model_fields.items() if field.description}
        prefix = settings.model_config["env_prefix"]
        assert set(lines) == {f"{prefix}{name}".upper() for name in fields}
        assert all(len((field.description or "").split()) > 2 for field in fields.values())


def test_the_table_says_where_each_value_comes_from_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://:s3cret@redis:6379/0", encoding="utf-8")
    monkeypatch.setenv("DARKROOM_REDIS_URL_FILE", str(secret))
    monkeypatch.setenv("DARKROOM_LINK_SECRET", "s3cret" * 10)
    monkeypatch.setenv("DARKROOM_RESULT_TTL_SECONDS", "3600")
    monkeypatch.setenv("DARKROOM_GONE_SECONDS", "120")
    described = Table(dotenv={"DARKROOM_GONE_SECONDS"}, only_set=True).describe(SharedSettings)
    assert _lines(described) == {
        "DARKROOM_REDIS_URL": f"redis://redis:6379/0 (from the file {secret}; default: redis://127.0.0.1:6379/0)",
        "DARKROOM_LINK_SECRET": "set, not shown (from the environment; default: none)",
        "DARKROOM_RESULT_TTL_SECONDS": "3600 (from the environment; default: 86400)",
        "DARKROOM_GONE_SECONDS": "120 (from .env; default: 86400)",
    }
    assert "s3cret" not in described


def test_a_value_that_cannot_be_used_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_PORT", "90000")
    monkeypatch.setenv("DARKROOM_HANG_SECONDS", "soon")  # of a group inside
    monkeypatch.setenv("DARKROOM_API_MAX_BODY_BYTES", "2GiB")
    lines = _lines(Table(only_set=True).describe(ApiSettings))
    assert lines["DARKROOM_API_PORT"].startswith("not usable: Input should be less than or equal to 65535 (from")
    assert lines["DARKROOM_API_MAX_BODY_BYTES"].startswith(
        "2147483648 (2.0 GiB) (from the environment; default: 6710"
    )


def test_a_file_that_is_missing_hides_no_other_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("DARKROOM_GONE_SECONDS", "120")
    lines = _lines(Table(only_set=True).describe(SharedSettings))
    assert "No such file" in lines["DARKROOM_REDIS_URL"]
    assert lines["DARKROOM_GONE_SECONDS"] == "120 (from the environment; default: 86400)"
