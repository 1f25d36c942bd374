"""Clients that submit jobs without a pause, and send every call again until it is accepted."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter

import httpx

_GIVE_UP_SECONDS = 120.0


class Clients:
    """Some threads of clients, while the block runs.

    Attributes:
        accepted: idempotency key -> id of the job.
        refusals: how often each kind of answer made a client send its call again.
    """

    def __init__(self, url: str, threads: int) -> None:
        self.accepted: dict[str, str] = {}
        self.refusals: Counter[str] = Counter()
        self.failures: list[str] = []
        self._url = url
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._submit_forever, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(_GIVE_UP_SECONDS + 10)

    def wait_for_more(self, jobs: int) -> None:
        """Wait until some more jobs are accepted."""
        wanted, deadline = len(self.accepted) + jobs, time.monotonic() + _GIVE_UP_SECONDS
        while len(self.accepted) < wanted:
            assert time.monotonic() < deadline, f"no jobs are accepted: {self.refusals}"
            assert not self.failures, self.failures
            time.sleep(0.05)

    def _submit_forever(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while not self._end.wait(0.2):
                self._submit(http, uuid.uuid4().hex)

    def _submit(self, http: httpx.Client, key: str) -> None:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            body = {"prompt": "a red circle", "num_inference_steps": 2}
            answer = http.post("/v1/txt2img", json=body, headers={"idempotency-key": key})
            if answer.status_code == 202:
                self.accepted[key] = answer.json()["id"]
                return
            if answer.status_code not in (409, 503):
                break
            self.refusals[f"{answer.status_code} {answer.json()['detail'][:60]}"] += 1
            time.sleep(0.2)
        self.failures.append(f"{key}: {answer.status_code} {answer.text}")
