"""The forms of Redis' URL, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.errors import SettingsError
from contracts.redis_url import read_url
from contracts.settings import SharedSettings, explain
from tests.support.redis_group import Certificates


def test_a_url_of_sentinels_names_each_of_them_the_primary_and_both_passwords() -> None:
    url = read_url("redis+sentinel://me:p%40ss@one:26380,two,[::1]:26381/main/3?sentinel_password=guard%2F")
    assert url.sentinels == (("one", 26380), ("two", 26379), ("::1", 26381))
    assert (url.primary, url.is_tls) == ("main", False)
    assert url.options == {"username": "me", "password": "p@ss", "db": 3}
    assert url.sentinel_options == {"password": "guard/"}


def test_the_password_of_redis_is_not_sent_to_the_sentinels() -> None:
    assert read_url("redis+sentinel://:secret@one/main").sentinel_options == {}


def test_certificates_are_for_redis_and_for_the_sentinels(tmp_path: Path) -> None:
    files = Certificates(tmp_path).options()
    query = "&".join(f"{name}={path}" for name, path in files.items())
    url = read_url(f"rediss+sentinel://one:26379/main?{query}&ssl_check_hostname=false")
    assert url.is_tls
    assert url.options == url.sentinel_options == {**files, "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost", "redis://"),
        ("redis+sentinel://one:26379", "must name the primary"),
        ("redis+sentinel:///main", "HOST:PORT"),
        ("redis+sentinel://one:x/main", "x"),
        ("redis+sentinel://one/main/last", "must be a number, got 'last'"),
        ("redis://localhost?colour=red", "colour"),
        ("redis://localhost?socket_timeout=9", "socket_timeout cannot be set"),
        ("rediss://localhost?ssl_ca_certs=/missing.pem", "/missing.pem"),
        ("rediss+sentinel://one/main?ssl_certfile=/missing.pem", "/missing.pem"),
        ("rediss://localhost?ssl_cert_reqs=maybe", "maybe"),
    ],
)
def test_an_unusable_url_is_explained(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as failure:
        read_url(url)
    assert reason in str(failure.value)
    assert "redis+sentinel://[USER:PASSWORD@]HOST:PORT" in str(failure.value)


def test_an_unusable_url_is_one_line_that_names_the_setting_and_no_password() -> None:
    with pytest.raises(ValidationError) as failure:
        SharedSettings(redis_url="redis+sentinel://:hunter2@one:26379")
    line = explain(failure.value)
    assert line.startswith("DARKROOM_REDIS_URL: unusable URL of Redis: the path must name the primary")
    assert "hunter2" not in line
