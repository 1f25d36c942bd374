"""The sources of settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.settings import SharedSettings, explain
from worker.settings import WorkerSettings


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
    with pytest.raises(ValidationError) as refused:
        SharedSettings()
    assert explain(refused.value) == (
        f"DARKROOM_REDIS_URL: DARKROOM_REDIS_URL_FILE names {tmp_path / 'none'}, which cannot be read: "
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "size"), [("20GiB", 20 * 2**30), ("1.5 MB", 1_500_000), ("123", 123), ("2kib", 2048)]
)
def test_a_size_may_have_a_unit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_BUDGET_BYTES", text)
    assert WorkerSettings().budget_bytes == size


@pytest.mark.parametrize("text", ["20 GiBi", "GiB", "lots", "9" * 400 + "GiB", "-1GiB"])
def test_a_size_in_no_unit_is_refused_with_an_example(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_BUDGET_BYTES", text)
    with pytest.raises(ValidationError) as refused:
        WorkerSettings()
    assert explain(refused.value) == (
        f"DARKROOM_WORKER_BUDGET_BYTES: must be a size such as 12GiB or 500MB, got {text[:40]!r}"
    )


@pytest.mark.parametrize("text", ["sdxl,flux", '["sdxl", "flux"]', " sdxl , flux "])
def test_a_list_is_json_or_has_commas(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warm").write_text(text, encoding="utf-8")
    monkeypatch.setenv("DARKROOM_WORKER_WARM_FILE", str(tmp_path / "warm"))
    assert WorkerSettings().warm == ["sdxl", "flux"]
    monkeypatch.setenv("DARKROOM_WORKER_WARM", text)
    assert WorkerSettings().warm == ["sdxl", "flux"]


def test_a_list_that_is_not_json_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_WARM", "[sdxl")
    with pytest.raises(ValidationError) as refused:
        WorkerSettings()
    assert explain(refused.value) == 'DARKROOM_WORKER_WARM: must be a list with commas, or as JSON: ["a", "b"]'
