"""A bucket's own matters: signed links, and a store that is away or does not know us."""

from __future__ import annotations

import httpx
import pytest

from contracts.errors import Unavailable
from contracts.storage.bucket import BucketStorage


def test_a_signed_link_reads_without_credentials_and_cannot_be_widened(bucket: BucketStorage) -> None:
    bucket.write("images/job/1/0.png", b"mine")
    bucket.write("images/job/1/1.png", b"not yours")
    link = bucket.sign("images/job/1/0.png", 60)
    assert link is not None
    answer = httpx.get(link, trust_env=False)
    assert (answer.content, answer.headers["content-type"]) == (b"mine", "image/png")
    for wider in (link.replace("0.png", "1.png"), link.replace("Expires=60", "Expires=600")):
        assert wider != link
        assert httpx.get(wider, trust_env=False).status_code == 403


def test_a_store_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch, bucket: BucketStorage) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = BucketStorage(bucket.url)
    with pytest.raises(Unavailable, match="does not answer"):
        away.check()
    with pytest.raises(Unavailable):
        away.exists("inputs/a.png")


def test_wrong_credentials_are_unavailable_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, bucket: BucketStorage
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(Unavailable) as caught:
        BucketStorage(bucket.url).check()
    assert "a-wrong-secret" not in str(caught.value)
