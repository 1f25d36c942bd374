"""The API's settings: environment variables, and who is served while there are no keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.settings import ApiSettings, is_loopback


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_PORT", "9123")
    monkeypatch.setenv("DARKROOM_API_MAX_IMAGE_PIXELS", "5000000")
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://elsewhere:1/0")

    settings = ApiSettings()

    assert (settings.port, settings.max_image_pixels) == (9123, 5_000_000)
    assert settings.shared.redis_url == "redis://elsewhere:1/0"


@pytest.mark.parametrize(
    ("old", "field", "value"),
    [
        ("DARKROOM_API_MAX_PICTURE_BYTES", "max_image_bytes", 2048),
        ("DARKROOM_API_MAX_PICTURE_PIXELS", "max_image_pixels", 8192),
        ("DARKROOM_API_FETCH_PICTURES", "fetch_images", True),
        ("DARKROOM_API_POST_SECONDS", "flush_seconds", 2.5),
    ],
)
def test_a_renamed_variable_is_still_read_under_its_old_name_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, old: str, field: str, value: float
) -> None:
    monkeypatch.setenv(old, str(value))

    assert getattr(ApiSettings(), field) == value
    assert f"{old} is deprecated; use DARKROOM_API_{field.upper()} instead" in caplog.text


def test_the_new_name_of_a_variable_wins_over_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_MAX_PICTURE_BYTES", "2048")
    monkeypatch.setenv("DARKROOM_API_MAX_IMAGE_BYTES", "4096")

    assert ApiSettings().max_image_bytes == 4096


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ApiSettings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org", ""])
def test_public_addresses_serve_everybody_only_if_allowed(host: str) -> None:
    assert not ApiSettings(host=host).serves_everybody
    assert ApiSettings(host=host, allow_anonymous=True).serves_everybody


@pytest.mark.parametrize(
    ("published", "is_open"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("0.0.0.0:8000", False),
        ("8000", False),
        ("10.0.0.5:80", False),
    ],
)
def test_a_container_serves_everybody_only_if_its_port_is_published_on_loopback(
    published: str, is_open: bool
) -> None:
    assert ApiSettings(host="0.0.0.0", published=published).serves_everybody is is_open


def test_a_service_that_requires_keys_serves_nobody_without_one() -> None:
    assert not ApiSettings(require_keys=True).serves_everybody
    assert not ApiSettings(require_keys=True, allow_anonymous=True).serves_everybody


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_serves_everybody(host: str) -> None:
    assert is_loopback(host)
    assert ApiSettings(host=host).serves_everybody
