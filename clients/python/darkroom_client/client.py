"""Calls of one Darkroom service, and `run`, which submits a job, waits for it and returns its files.

Bodies are plain dictionaries, typed by what `make clients` generates: a field that a newer service adds to an
answer breaks nothing. Every call is repeated that got no answer: a submission carries an idempotency key, and so
never makes two jobs.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import httpx

from darkroom_client.errors import DarkroomError, error_of_job, error_of_response
from darkroom_client.events import ENDS, Event, event_of_job, read_events

if TYPE_CHECKING:
    from darkroom_client.schema import (
        ControlNetRequest,
        EditRequest,
        Img2ImgRequest,
        InpaintRequest,
        JobView,
        Txt2ImgRequest,
    )

    Request: TypeAlias = Txt2ImgRequest | Img2ImgRequest | InpaintRequest | ControlNetRequest | EditRequest

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
#: Longest wait that the service grants in one call.
_HOLD_SECONDS = 60
#: A stream is silent for less: the service sends a comment every 15 s.
_SILENCE_SECONDS = 60.0
_UPLOAD_SECONDS = 600.0


@dataclass(frozen=True)
class Result:
    """A completed job and its files.

    Attributes:
        job: with the receipt.
        images: the files, in the format that was asked for; image i has the seed `job["images"][i]["seed"]`.
    """

    job: JobView
    images: tuple[bytes, ...]


class Client:
    """A client of one service. Every method raises DarkroomError; a client may be used by several threads."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retries: int = 5,
        http: httpx.Client | None = None,
    ) -> None:
        """Make a client.

        Args:
            url: of the service, such as `http://127.0.0.1:8000`.
            key: API key; None works only with a service that has no keys.
            timeout_seconds: of one call, not of a job.
            retries: how often a call is repeated that got no answer, or one that says to come back.
            http: for proxies or certificates of your own; by default those of the environment.
        """
        self.url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._http = httpx.Client() if http is None else http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(
        self,
        request: Request,
        *,
        wait: Literal["poll", "stream", "wait"] = "poll",
        on_event: Callable[[Event], None] | None = None,
        timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Result:
        """Submit a job, wait for its end, and download its images.

        Args:
            request: with its `task`: `{"task": "txt2img", "prompt": "a red circle"}`.
            wait: `poll` asks again and again, `stream` follows the job's events, `wait` lets the service answer at
                the end and polls if that takes longer than a minute. Each gives the same result.
            on_event: called with what happens; with `wait` only from its second minute on.
            timeout_seconds: for the job; None waits as long as it takes.
            idempotency_key: by which a repeated call finds the same job; None makes one, for the repetitions in
                this call.

        Raises:
            DarkroomError: the request was refused, or the job failed (`job` is set). Whatever else ends the wait,
                the time limit (`timeout`) or Ctrl-C, cancels the job.
        """
        clock, tell = _Clock(timeout_seconds), on_event or _ignore
        body: Mapping[str, Any] = request
        wait_seconds = None
        if wait == "wait":
            # Until there is an answer nobody knows the job's id, and so could cancel it.
            body, wait_seconds = {"cancel_on_disconnect": True, **body}, clock.limit(_HOLD_SECONDS)
        job = self._submit(body, idempotency_key or str(uuid.uuid4()), wait_seconds, clock)
        try:
            job = self._follow(job, clock, tell) if wait == "stream" else self._poll(job, clock, tell)
        except BaseException:
            with suppress(DarkroomError):
                self.cancel(job["id"])
            raise
        if job["status"] != "completed":
            raise error_of_job(job)
        return Result(job, tuple(self.download(image["url"]) for image in job["images"]))

    def submit(self, request: Request, *, idempotency_key: str | None = None) -> JobView:
        """Submit a job and return it as it was accepted."""
        return self._submit(request, idempotency_key or str(uuid.uuid4()), None, _Clock(None))

    def job(self, id: str) -> JobView:
        """Return a job as it is now."""
        found: JobView = self.call("GET", f"/v1/jobs/{id}")
        return found

    def cancel(self, id: str) -> JobView:
        """Cancel a job: at once while it waits, within one denoising step while it runs."""
        found: JobView = self.call("POST", f"/v1/jobs/{id}/cancel")
        return found

    def upload(self, image: bytes | Path) -> str:
        """Upload an image and return the id (`upload:…`) by which requests name it."""
        content = image.read_bytes() if isinstance(image, Path) else image
        headers = {"Content-Type": "application/octet-stream"}
        options = {"content": content, "headers": headers, "timeout": _UPLOAD_SECONDS}
        id: str = self._request("POST", "/v1/uploads", _Clock(None), **options).json()["id"]
        return id

    def download(self, url: str) -> bytes:
        """Return the bytes of an image. Its link is signed and may lead to a bucket: the API key is not sent."""
        return self._request("GET", url, _Clock(None), follow_redirects=True).content

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call any path of the service, with `json`, `params` or `headers` as in httpx; return the JSON."""
        response = self._request(method, path, _Clock(None), **options)
        return response.json() if response.content else None

    def _submit(self, body: Mapping[str, Any], key: str, wait_seconds: int | None, clock: _Clock) -> JobView:
        headers = {"Idempotency-Key": key}
        if wait_seconds is not None:
            headers["Prefer"] = f"wait={wait_seconds}"
        timeout_seconds = self._timeout_seconds + (wait_seconds or 0)
        options = {"json": body, "headers": headers, "timeout": timeout_seconds}
        job: JobView = self._request("POST", "/v1/jobs", clock, **options).json()
        return job

    def _poll(self, job: JobView, clock: _Clock, tell: Callable[[Event], None]) -> JobView:
        """Ask for the job until it has ended: less often while it waits, for that may take long."""
        pause_seconds, told = _FIRST_PAUSE_SECONDS, None
        while True:
            event = event_of_job(job)
            if event != told:
                tell(event)
            if job["status"] in ENDS:
                return job
            told = event
            clock.sleep(pause_seconds)
            longer = min(_LONGEST_PAUSE_SECONDS, 1.3 * pause_seconds)
            pause_seconds = longer if job["status"] == "queued" else _FIRST_PAUSE_SECONDS
            job = self._request("GET", f"/v1/jobs/{job['id']}", clock).json()

    def _follow(self, job: JobView, clock: _Clock, tell: Callable[[Event], None]) -> JobView:
        """Follow the job's events up to its end; poll where streams do not work."""
        for event in self._events(job["id"], clock):
            tell(event)
            if event.kind in ENDS:
                return event.data.get("job") or self.job(job["id"])
        return self._poll(job, clock, tell)

    def _events(self, id: str, clock: _Clock) -> Iterator[Event]:
        """Yield a job's events, after a broken stream from where it stopped; stop early if that fails often."""
        url, last_id, failures = f"{self.url}/v1/jobs/{id}/events", "", 0
        while failures <= self._retries:
            headers = {**self._headers, "Accept": "text/event-stream", "Last-Event-ID": last_id}
            timeout = clock.limit_seconds(_SILENCE_SECONDS)
            try:
                with self._http.stream("GET", url, headers=headers, timeout=timeout) as response:
                    if response.status_code != httpx.codes.OK:
                        return
                    for event in read_events(response.iter_lines()):
                        clock.require()
                        if event is not None:
                            last_id, failures = event.id or last_id, 0
                            yield event
            except httpx.TransportError:
                clock.require()
            failures += 1
            clock.sleep(_backoff(failures))

    def _request(self, method: str, path: str, clock: _Clock, **options: Any) -> httpx.Response:
        """Call until there is an answer; the key goes to the service's own paths only."""
        is_own = path.startswith("/")
        headers = {**(self._headers if is_own else {}), **options.pop("headers", {})}
        options = {"timeout": self._timeout_seconds, **options}
        url = f"{self.url}{path}" if is_own else path
        for attempt in range(1, self._retries + 2):
            try:
                response = self._http.request(method, url, headers=headers, **options)
            except httpx.TransportError as error:
                failure = DarkroomError("no_answer", f"{url} does not answer: {error or type(error).__name__}")
            else:
                if not response.is_error:
                    return response
                failure = error_of_response(response)
            # The first call may still be accepted when the second one comes.
            is_raced = failure.status == httpx.codes.CONFLICT and "Idempotency-Key" in headers
            if attempt > self._retries or not (failure.is_temporary or is_raced):
                raise failure
            clock.sleep(max(failure.retry_after_seconds or 0.0, _backoff(attempt)), failure)
        raise AssertionError("unreachable")


class _Clock:
    """How long a call may still take."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def limit_seconds(self, seconds: float) -> float:
        """The shorter of a time and what is left; positive."""
        return seconds if self._ends_at is None else max(0.01, min(seconds, self._ends_at - time.monotonic()))

    def limit(self, seconds: int) -> int:
        """The same in whole seconds, at least 1."""
        return max(1, int(self.limit_seconds(seconds)))

    def require(self) -> None:
        """Raise once the time is over."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            raise DarkroomError(
                "timeout", f"the job did not end within {self._timeout_seconds:g} s", title="Timed out"
            )

    def sleep(self, seconds: float, failure: DarkroomError | None = None) -> None:
        """Sleep, but not past the end; where that comes first, raise the failure that the pause was for."""
        if failure is not None and self.limit_seconds(seconds) < seconds:
            raise failure
        time.sleep(self.limit_seconds(seconds))
        self.require()


def _backoff(attempt: int) -> float:
    """Pause after the attempt of this number, from 1: twice as long each time, and random, so clients spread."""
    longest: float = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempt)
    return longest * random.uniform(0.5, 1.0)


def _ignore(event: Event) -> None:
    """Do nothing."""
