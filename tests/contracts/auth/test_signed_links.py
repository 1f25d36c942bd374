"""The secret of signed links: one for all processes, also after Redis has lost its data."""

from __future__ import annotations

import pytest

from contracts.auth.signed_links import LinkSigner
from contracts.errors import LinkRefused
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.disks import full_disk


def signer(queue: JobQueue, settings: SharedSettings, storage: Storage | None) -> LinkSigner:
    return LinkSigner(queue.connection, settings, storage)


def check(signer: LinkSigner, query: str) -> None:
    signer.check_image(
        "job", 0, [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
    )


def test_processes_started_before_and_after_a_loss_of_redis_data_accept_each_others_links(
    queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    before = signer(queue, settings, storage)
    old_link = before.sign_image("job", 0)
    queue.connection.flushall()
    after = signer(queue, settings, storage)

    check(after, old_link)
    check(before, after.sign_image("job", 0))


def test_a_process_without_the_storage_learns_the_secret_from_one_with_it(
    queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    api, dispatcher = signer(queue, settings, storage), signer(queue, settings, None)
    api.prepare()
    queue.connection.flushall()
    dispatcher.prepare()  # by itself: a secret that nobody else knows
    with pytest.raises(LinkRefused):
        check(api, dispatcher.sign_image("job", 0))

    api.share()
    dispatcher.prepare()

    check(api, dispatcher.sign_image("job", 0))


def test_a_secret_that_redis_has_from_an_earlier_release_stays(
    queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    link = signer(queue, settings, None).sign_image("job", 0)

    check(signer(queue, settings, storage), link)
    queue.connection.flushall()

    check(signer(queue, settings, storage), link)


def test_links_are_signed_while_the_storage_is_full(
    queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    with full_disk():
        link = signer(queue, settings, storage).sign_image("job", 0)

    check(signer(queue, settings, storage), link)
