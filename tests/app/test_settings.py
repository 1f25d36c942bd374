"""The API's settings: environment names, and who may be served without keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.settings import ApiSettings, is_loopback


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_PORT", "9123")
    monkeypatch.setenv("DARKROOM_API_MAX_PICTURE_PIXELS", "5000000")
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://elsewhere:1/0")

    settings = ApiSettings()

    assert (settings.port, settings.max_picture_pixels) == (9123, 5_000_000)
    assert settings.shared.redis_url == "redis://elsewhere:1/0"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ApiSettings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org", ""])
def test_without_keys_other_addresses_are_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="DARKROOM_API_ALLOW_ANONYMOUS=true"):
        ApiSettings(host=host)


def test_a_plain_word_allows_other_addresses() -> None:
    assert ApiSettings(host="0.0.0.0", allow_anonymous=True).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_served(host: str) -> None:
    assert is_loopback(host)
    assert ApiSettings(host=host).host == host
