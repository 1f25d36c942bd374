"""HTTP load on a service of this machine: so many requests a second over kept connections, and what each took.

An open loop: a request is sent when its time has come, and its latency counts from then, so that a service that
stalls is not spared the requests of its pause. Knows just enough HTTP/1.1 to cost little beside what it measures.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from bench.report import percentile

#: Pause before a request that a busy service has refused is sent again.
_BUSY_SECONDS = 0.2


@dataclass
class LoadResult:
    """Result of a load.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds, of each answer.
        cpu_seconds: processor time of the server.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of the server for one answer."""
        return self.cpu_seconds / len(self.latencies) * 1000

    def milliseconds(self, share: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.latencies, share) * 1000


class Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: Any = None, headers: str = "") -> tuple[int, bytes]:
        """One request, with further header lines; status and body of its answer."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{kind}\r\n".encode() + data)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), await self._reader.readexactly(int(answer["content-length"]))

    async def submit(self, path: str, body: Any, headers: str = "") -> tuple[int, bytes]:
        """Create a job; asks again while the service decodes as many input images as it may."""
        answer = await self.ask("POST", path, body, headers)
        if answer[0] != 503:
            return answer
        await asyncio.sleep(_BUSY_SECONDS)
        return await self.submit(path, body, headers)

    async def event(self, path: str, name: str) -> bool:
        """Read an event stream until an event of this name; False if the stream ends without one."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        with suppress(asyncio.IncompleteReadError):
            await self._reader.readuntil(f"event: {name}\n".encode())
            return True
        return False


async def load(
    port: int, method: str, path: str, body: Any, *, per_second: float | None, seconds: float, clients: int = 64
) -> LoadResult:
    """Send requests for a while: at a rate, or (None) each connection as fast as it is answered."""
    outcome = LoadResult()
    free: asyncio.Queue[Connection] = asyncio.Queue()

    async def send(connection: Connection, due: float) -> None:
        status, answer = await connection.ask(method, path, body)
        outcome.latencies.append(time.perf_counter() - due)
        outcome.statuses[status] += 1
        outcome.bodies.append(answer)
        free.put_nowait(connection)

    async with AsyncExitStack() as stack:
        for _ in range(clients):
            free.put_nowait(await stack.enter_async_context(Connection(port)))
        started = time.perf_counter()
        due, end, tasks = started, started + seconds, set()
        while due < end:
            if per_second is not None:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            connection = await free.get()
            now = time.perf_counter()
            task = asyncio.create_task(send(connection, due if per_second is not None else now))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due = due + 1 / per_second if per_second is not None else now
        await asyncio.gather(*tasks)
        outcome.seconds = time.perf_counter() - started
    return outcome
