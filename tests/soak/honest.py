"""Honest clients: they submit jobs, send a call again until it is accepted, and follow each job to its end."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import httpx

ENDS = ("completed", "failed", "cancelled")
#: What an overloaded or broken service may answer; the call is sent again.
AGAIN = (408, 409, 429, 503, 507)
#: How many open jobs are looked at each second, the oldest first.
_LOOKED_AT = 20
_BODIES = (
    {"prompt": "a red circle on a blue background", "num_inference_steps": 4},
    {"prompt": "a yellow square", "num_inference_steps": 4, "seed": 7},
    {"prompt": "a green star", "num_inference_steps": 6, "priority": "normal"},
)


@dataclass(frozen=True)
class Call:
    """One POST that was answered 202: when it began (monotonic), and how long it took."""

    began: float
    seconds: float


@dataclass
class Books:
    """What honest clients have seen; written by several threads.

    Attributes:
        calls: those that were accepted.
        repeated: status or error -> how often a call was sent again for it.
        ended: id -> status of each job that has ended.
        problems: what must not happen.
    """

    calls: list[Call] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def open_jobs(self) -> list[str]:
        """Ids of jobs that have not been seen to end."""
        return [id for id in list(self.accepted.values()) if id not in self.ended]


class HonestClients:
    """Threads that submit, and one that follows the jobs."""

    def __init__(self, url: str, key: str, *, clients: int = 2, pause_seconds: float = 0.5) -> None:
        self.books = Books()
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._pause_seconds = pause_seconds
        self._submitting, self._following = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._submit_forever, daemon=True) for _ in range(clients)]
        self._follower = threading.Thread(target=self._follow_forever, daemon=True)

    def start(self) -> None:
        """Begin."""
        for thread in (*self._threads, self._follower):
            thread.start()

    def stop(self, patience_seconds: float) -> None:
        """Submit no more, and wait until all jobs have ended; those that have not are problems."""
        self._submitting.set()
        deadline = time.monotonic() + patience_seconds
        for thread in self._threads:
            thread.join(max(1.0, deadline - time.monotonic()))
        while self.books.open_jobs and time.monotonic() < deadline:
            time.sleep(0.5)
        self._following.set()
        self._follower.join(60)
        if left := self.books.open_jobs:
            self.books.problems.append(f"{len(left)} jobs have not ended: {', '.join(left[:5])}, …")

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=30, trust_env=False)

    # -- submit ---------------------------------------------------------------------------------------

    def _submit_forever(self) -> None:
        with self._client() as http:
            number = 0
            while not self._submitting.wait(self._pause_seconds):
                self._submit(http, _BODIES[number % len(_BODIES)])
                number += 1

    def _submit(self, http: httpx.Client, body: dict[str, object]) -> None:
        key = uuid.uuid4().hex
        while True:
            began = time.monotonic()
            try:
                answer = http.post("/v1/txt2img", json=body, headers={"idempotency-key": key})
            except httpx.HTTPError as error:
                self.books.repeated[type(error).__name__] += 1
                time.sleep(0.2)
                continue
            if answer.status_code == 202:
                self.books.calls.append(Call(began, time.monotonic() - began))
                self.books.accepted[key] = answer.json()["id"]
                return
            if answer.status_code not in AGAIN:
                self.books.problems.append(f"POST answered {answer.status_code}: {answer.text[:300]}")
                return
            self.books.repeated[f"{answer.status_code} {answer.json().get('code', '')}"] += 1
            time.sleep(min(2.0, float(answer.headers.get("retry-after", 0.2))))

    # -- follow ---------------------------------------------------------------------------------------

    def _follow_forever(self) -> None:
        with self._client() as http:
            while not self._following.wait(1.0):
                # They end in about the order in which they were accepted; records stay for some minutes.
                for id in self.books.open_jobs[:_LOOKED_AT]:
                    self._look(http, id)

    def _look(self, http: httpx.Client, id: str) -> None:
        try:
            answer = http.get(f"/v1/jobs/{id}")
        except httpx.HTTPError:
            return
        if answer.status_code in (404, 410):
            self.books.problems.append(f"job {id} was lost: {answer.status_code}")
            self.books.ended[id] = "lost"
        if answer.status_code != 200 or answer.json()["status"] not in ENDS:
            return
        ends = self._ends(http, id)
        if ends is None:
            return
        status = self.books.ended[id] = answer.json()["status"]
        if ends != [status]:
            self.books.problems.append(f"job {id} is {status}, and its events end with {ends}")
        if status != "completed":
            code = (answer.json()["error"] or {}).get("code")
            self.books.ended[id] = f"{status} {code}"
            if code != "worker_lost":
                self.books.problems.append(f"job {id}: {status} {code}")

    def _ends(self, http: httpx.Client, id: str) -> list[str] | None:
        """The final events of an ended job's stream; None where it cannot be read now."""
        try:
            answer = http.get(f"/v1/jobs/{id}/events")
        except httpx.HTTPError:
            return None
        if answer.status_code != 200:
            return None
        kinds = [line.partition(": ")[2] for line in answer.text.splitlines() if line.startswith("event: ")]
        return [kind for kind in kinds if kind in ENDS]
