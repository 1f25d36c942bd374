"""Behaviour of a bucket only: signed links, an unreachable store, wrong credentials."""

from __future__ import annotations

import httpx
import pytest

from contracts.errors import Unavailable
from contracts.storage.bucket import BucketStorage


def test_a_signed_link_reads_one_object_without_credentials(bucket: BucketStorage) -> None:
    bucket.write("images/job/1/0.png", b"mine")
    bucket.write("images/job/1/1.png", b"not yours")
    link = bucket.sign("images/job/1/0.png", 60)
    assert link is not None
    answer = httpx.get(link, trust_env=False)
    assert (answer.content, answer.headers["content-type"]) == (b"mine", "image/png")
    for changed in (link.replace("0.png", "1.png"), link.replace("Expires=60", "Expires=600")):
        assert changed != link
        assert httpx.get(changed, trust_env=False).status_code == 403


def test_an_unreachable_store_is_unavailable(monkeypatch: pytest.MonkeyPatch, bucket: BucketStorage) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = BucketStorage(bucket.url)
    with pytest.raises(Unavailable, match="does not answer"):
        away.check()
    with pytest.raises(Unavailable):
        away.exists("inputs/a.png")


def test_wrong_credentials_raise_unavailable_and_are_not_quoted(
    monkeypatch: pytest.MonkeyPatch, bucket: BucketStorage
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(Unavailable) as caught:
        BucketStorage(bucket.url).check()
    assert "a-wrong-secret" not in str(caught.value)
