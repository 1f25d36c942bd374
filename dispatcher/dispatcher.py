"""The RQ worker of webhooks: takes messages, receivers in turn, and begins attempts while there is room for them.

A receiver that stalls holds nothing but its own few places. What an attempt is, `dispatcher.deliveries` says; what
becomes of a message, `contracts/scripts/end_delivery.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import time

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job as RqJob
from rq.worker import WorkerStatus

from contracts import logs
from contracts.auth.signed_links import LinkSigner
from contracts.errors import Unavailable
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import ForeignJob, Message, Outbox, Outcome
from contracts.outbound.signing import Secrets
from contracts.queue.rq_worker import DarkroomRqWorker
from dispatcher.concurrency import AttemptPool
from dispatcher.delivery import deliver
from dispatcher.http_client import Poster
from dispatcher.settings import WebhookSettings

_log = logging.getLogger(__name__)

_REDIS_PAUSE_SECONDS = 0.5
_POST_SECONDS = 2.0


class Dispatcher(DarkroomRqWorker):
    """One process that delivers messages until told to stop."""

    def __init__(
        self,
        connection: Redis,
        outbox: Outbox,
        poster: Poster,
        secrets: Secrets,
        signer: LinkSigner,
        ledger: TotalsWriter,
        tally: Counters,
        settings: WebhookSettings,
    ) -> None:
        """`connection` returns bytes, as RQ wants it; `secrets` sign messages, and `signer` the links in them."""
        super().__init__(connection, settings.name)
        self._outbox = outbox
        self._poster = poster
        self._secrets = secrets
        self._signer = signer
        self._ledger = ledger
        self._tally = tally
        self._settings = settings
        self._attempts = AttemptPool(self._attempt, settings)
        self._taken: Message | None = None
        self._next_post_at = 0.0

    def start(self) -> None:
        """Deliver until a signal says stop; attempts that are not over soon after it are handed back."""
        try:
            self.work(logging_level="WARNING")
        finally:
            self._attempts.end(self._poster.close())
            self._post_figures()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RqJob, Queue] | None:
        """Wait for a message and for room; None once the dispatcher is told to stop."""
        del timeout, max_idle_time
        while not self._stop_requested:
            if time.monotonic() > self._next_post_at:
                self._post_figures()
            self._taken = self._take() if self._attempts.have_room else None
            if self._taken is not None:
                return RqJob(id=self._taken.id, connection=self.connection), self.queues[0]
            self.rest(self._settings.poll_seconds)
        return None

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Begin the attempt, and go on."""
        del job, queue
        message, self._taken = self._taken, None
        self.show_state(WorkerStatus.BUSY)
        if message is not None:
            self._attempts.begin(message)

    def _take(self) -> Message | None:
        try:
            return self._outbox.take(self._attempts.full_sites)
        except ForeignJob as planted:
            _log.error("RQ job %s in a queue of webhooks is none of ours: refused", planted)
        except RedisError as error:
            _log.warning("no message taken, Redis does not answer: %s", error)
            time.sleep(_REDIS_PAUSE_SECONDS)
        return None

    async def _attempt(self, message: Message) -> None:
        with logs.bound(**message.belongs_to):
            await self._attempt_once(message)

    async def _attempt_once(self, message: Message) -> None:
        outcome = Outcome("back")  # of an attempt that is cancelled, or for which there is no key
        try:
            keys = await asyncio.to_thread(self._secrets.current)
            await asyncio.to_thread(self._signer.prepare)
            outcome = await deliver(message, self._poster, keys, self._signer, self._settings)
        except (RedisError, Unavailable) as error:
            _log.warning("message %s cannot be signed, Redis does not answer: %s", message.id, error)
        finally:
            await asyncio.to_thread(self._end, message, outcome)

    def _end(self, message: Message, outcome: Outcome) -> None:
        """Runs in a thread. Where Redis stays away the lease runs out, and the message is sent once more."""
        if outcome.next != "back":
            self._tally.count("webhook_deliveries", outcome=outcome.next)
            about = {"message_id": message.id, "event": message.event, "attempt": message.attempts + 1}
            _log.info("webhook %s", outcome.next, extra=about | {"error": outcome.error})
        give_up_at = time.monotonic() + self._settings.lease_seconds
        while True:
            try:
                self._outbox.end(message, outcome)
                return
            except RedisError as error:
                if self._stop_requested or time.monotonic() > give_up_at:
                    _log.warning("message %s: its end was not written: %s", message.id, error)
                    return
                time.sleep(_REDIS_PAUSE_SECONDS)

    def _post_figures(self) -> None:
        self._next_post_at = time.monotonic() + _POST_SECONDS
        try:
            self._ledger.post()
        except RedisError as error:
            _log.warning("figures not posted: %s", error)
