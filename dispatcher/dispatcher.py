"""The dispatcher's loop: takes messages of webhooks, receivers in turn, and starts attempts while there is room.

A receiver that stalls occupies only its own few places. One attempt is `dispatcher.delivery`; what follows from it
is `end_delivery.lua`.
"""

from __future__ import annotations

import asyncio
import logging
import time

from redis import Redis
from redis.exceptions import RedisError
from rq.worker import WorkerStatus

from contracts import logs
from contracts.auth.signed_links import LinkSigner
from contracts.errors import Unavailable
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import ForeignJob, Message, Outbox, Outcome
from contracts.outbound.signing import Secrets
from contracts.processes.background import BackgroundThread
from contracts.processes.rq_registration import RqRegistration
from contracts.processes.shutdown import Shutdown
from contracts.queue.listener import WorkListener
from contracts.redis import keys
from contracts.tracing.tracing import NO_TRACING, Tracing
from dispatcher.concurrency import AttemptPool
from dispatcher.delivery import deliver
from dispatcher.http_client import Poster
from dispatcher.settings import WebhookSettings
from dispatcher.spans import delivering, end_delivery

_log = logging.getLogger(__name__)

_REDIS_PAUSE_SECONDS = 0.5
_TOTALS_SECONDS = 2.0


class Dispatcher:
    """A process that delivers messages until told to stop."""

    def __init__(
        self,
        connection: Redis,
        outbox: Outbox,
        poster: Poster,
        secrets: Secrets,
        signer: LinkSigner,
        totals: TotalsWriter,
        counters: Counters,
        settings: WebhookSettings,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Build the loop; nothing runs before `start`.

        Args:
            connection: for RQ; returns bytes.
            secrets: sign the messages.
            signer: signs the links in them.
            totals: adds `counters` to the service's totals.
            tracing: writes a span of each attempt.
        """
        self._outbox = outbox
        self._poster = poster
        self._secrets = secrets
        self._signer = signer
        self._totals = totals
        self._totals_thread = BackgroundThread("totals")
        self._counters = counters
        self._settings, self._tracing = settings, tracing
        self._registration = RqRegistration(connection, settings.name)
        self._listener = WorkListener(outbox.connection, keys.WAKE_MESSAGES)
        self._shutdown = Shutdown(settings.drain_seconds, on_request=self._listener.wake)
        self._attempts = AttemptPool(self._attempt, settings, on_end=self._listener.wake)

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that runs the attempts, in a thread of its own."""
        return self._attempts.event_loop

    def start(self) -> None:
        """Deliver until a signal asks to stop; attempts that are not over by the drain time are released."""
        try:
            with self._registration:
                self._shutdown.install()
                self._listener.start()
                self._totals_thread.repeat(self._post_totals, _TOTALS_SECONDS)
                self.run()
        finally:
            self._listener.close()
            self._attempts.close(self._shutdown, self._poster.close())
            self._totals_thread.close()
            self._post_totals()

    def run(self) -> None:
        """Take a message and start its attempt, or wait; until a signal asks to stop."""
        while not self._shutdown.requested:
            message = self._take()
            if message is None:
                self._wait()
            else:
                self._registration.show(WorkerStatus.BUSY)
                self._attempts.begin(message)

    def _take(self) -> Message | None:
        """The next message; None where none can be sent now, and `_wait_seconds` says when to look again."""
        self._wait_seconds = self._settings.poll_seconds
        if self._registration.is_suspended or not self._attempts.has_room:
            return None
        try:
            message = self._outbox.claim(self._attempts.full_sites)
            if message is None:
                due_seconds = self._outbox.seconds_until_due()
                self._wait_seconds = min(self._wait_seconds, due_seconds)
        except ForeignJob as foreign:
            _log.error("RQ job %s in a webhook queue is not a Darkroom message: refused", foreign)
            self._wait_seconds = 0.0
        except RedisError as error:
            _log.warning("no message taken, Redis does not answer: %s", error)
            self._wait_seconds = _REDIS_PAUSE_SECONDS
        else:
            return message
        return None

    def _wait(self) -> None:
        """Until a message is announced or due, an attempt ends, or it is time to poll."""
        self._registration.show(WorkerStatus.IDLE)
        self._listener.wait(self._wait_seconds)

    # -- one attempt, in the event loop of the attempts -----------------------------------------------

    async def _attempt(self, message: Message) -> None:
        with logs.bound(**message.belongs_to):
            await self._attempt_once(message)

    async def _attempt_once(self, message: Message) -> None:
        outcome = Outcome("back")  # where the attempt is cancelled or cannot be signed
        try:
            keys = await asyncio.to_thread(self._secrets.current, message.owner)
            await asyncio.to_thread(self._signer.prepare)
            with delivering(self._tracing, message) as span:
                outcome = await deliver(message, self._poster, keys, self._signer, self._settings, span.context)
                end_delivery(span, outcome)
        except (RedisError, Unavailable) as error:
            _log.warning("message %s not signed, Redis does not answer: %s", message.id, error)
        finally:
            await asyncio.to_thread(self._end, message, outcome)

    def _end(self, message: Message, outcome: Outcome) -> None:
        """Write how the attempt ended; if Redis stays away, the lease expires and the message is sent again."""
        if outcome.next != "back":
            self._counters.count("webhook_deliveries", outcome=outcome.next)
            details = {"message_id": message.id, "event": message.event, "attempt": message.attempts + 1}
            _log.info("webhook %s", outcome.next, extra=details | {"error": outcome.error})
        give_up_at = time.monotonic() + self._settings.lease_seconds
        while True:
            try:
                self._outbox.finish(message, outcome)
                return
            except RedisError as error:
                if self._shutdown.requested or time.monotonic() > give_up_at:
                    _log.warning("message %s: the end of the attempt was not written: %s", message.id, error)
                    return
                time.sleep(_REDIS_PAUSE_SECONDS)

    def _post_totals(self) -> None:
        try:
            self._totals.flush()
        except RedisError as error:
            _log.warning("counts not added to the totals: %s", error)
