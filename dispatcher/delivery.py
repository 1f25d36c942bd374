"""One attempt to deliver a message: render the job as the API shows it, sign it, post it, judge the answer.

Every error becomes an outcome. Knows no Redis.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from http import HTTPStatus

import httpx

from contracts.auth.signed_links import LinkSigner
from contracts.errors import DestinationRefused, DestinationUnknown
from contracts.jobs.records import JobRecord, WebhookRecord
from contracts.outbound.outbox import Message, Outcome
from contracts.outbound.signing import Secret, sign
from contracts.tracing.trace_context import TraceContext
from contracts.views.job import view_job
from contracts.views.links import Links
from contracts.views.prediction import view_prediction
from dispatcher.http_client import Answer, Poster
from dispatcher.settings import WebhookSettings

_log = logging.getLogger(__name__)

#: Maximum share that is added to a pause, so that messages that failed together are not retried together.
_JITTER = 0.1


async def deliver(
    message: Message,
    poster: Poster,
    keys: Sequence[Secret],
    signer: LinkSigner,
    settings: WebhookSettings,
    context: TraceContext | None = None,
) -> Outcome:
    """Make one attempt to deliver a message; returns what follows from the answer, and never raises.

    Args:
        context: the attempt's place in a trace, which the receiver is told.
    """
    try:
        job = message.read_job()
        body = render(job, signer)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "darkroom",
            "Darkroom-Event": message.event,
            "Darkroom-Sequence": str(message.sequence),
            **({} if context is None else context.headers),
            **sign(keys, message.id, int(time.time()), body),
        }
        return _judge(message, settings, await poster.post(_webhook_of(job).url, body, headers))
    except (DestinationRefused, DestinationUnknown) as error:
        return _failed(message, settings, str(error))
    except TimeoutError:
        return _failed(message, settings, f"no response within {settings.timeout_seconds:g} s")
    except httpx.HTTPError as error:
        return _failed(message, settings, str(error) or type(error).__name__)
    except Exception as error:  # noqa: BLE001  # a message that cannot be sent must not stop the others
        _log.exception("message %s failed", message.id)
        return _failed(message, settings, type(error).__name__)


def render(job: JobRecord, signer: LinkSigner) -> bytes:
    """Render the body: the job, or prediction, as the API shows it, without the state of its deliveries."""
    webhook = _webhook_of(job)
    links = Links(webhook.base, signer)
    if webhook.prediction_version is not None:
        return view_prediction(job, webhook.prediction_version, links).model_dump_json().encode()
    return view_job(job.model_copy(update={"deliveries": {}}), links).model_dump_json().encode()


def _webhook_of(job: JobRecord) -> WebhookRecord:
    if job.webhook is None:
        raise ValueError(f"job {job.id} has no webhook")
    return job.webhook


def _judge(message: Message, settings: WebhookSettings, answer: Answer) -> Outcome:
    if 200 <= answer.status_code < 300:
        return Outcome("delivered", answer.status_code)
    if answer.status_code == HTTPStatus.GONE:
        return Outcome(
            "given_up", answer.status_code, "the receiver answered 410 (Gone), so no more messages are sent"
        )
    return _failed(message, settings, f"the receiver answered {answer.status_code}", answer)


def _failed(message: Message, settings: WebhookSettings, error: str, answer: Answer | None = None) -> Outcome:
    status_code = None if answer is None else answer.status_code
    if message.attempts >= len(settings.pauses_seconds):
        return Outcome("given_up", status_code, error)
    pause_seconds = settings.pauses_seconds[message.attempts] * (1 + _JITTER * random.random())
    if answer is not None and answer.retry_after_seconds is not None:
        asked_seconds = min(answer.retry_after_seconds, settings.longest_pause_seconds)
        pause_seconds = max(pause_seconds, asked_seconds)
    return Outcome("again", status_code, error, pause_seconds)
