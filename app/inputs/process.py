"""The API's end of one decoder process: starts it, exchanges messages with it, and ends it when it takes too long.

Knows the framing of messages, not what they mean; `decoder_process.py` is the other end.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.inputs.codec.limits import Limits

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).resolve().parents[2]
#: All that the process inherits of the environment: none of the service's secrets.
_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
#: glibc gives blocks of this size back to the system as soon as they are free, and has one heap.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_ARENA_MAX": "1"}
#: Libraries of arithmetic start no threads, each of which would reserve memory.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class DecoderProcessFailed(Exception):
    """A decoder process that died, or was ended because it took too long."""

    def __init__(self, *, timed_out: bool) -> None:
        self.timed_out = timed_out
        super().__init__("timed out" if timed_out else "died")


class DecoderProcess:
    """A decoder process, for one thread at a time; it starts with the first message, and again after failing."""

    def __init__(self, limits: Limits, timeout_seconds: float, task_bytes: int = 0) -> None:
        """`task_bytes` is the memory that its tasks need beside decoding an image."""
        self._limits = limits
        self._task_bytes = task_bytes
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def exchange(self, request: Mapping[str, Any], data: bytes) -> tuple[Mapping[str, Any], bytes]:
        """Send a request with its bytes, and return the reply with its bytes.

        Raises:
            DecoderProcessFailed
        """
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        log.debug("%d bytes to decode", len(data))
        timed_out = threading.Event()

        def end(process: subprocess.Popen[bytes]) -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._timeout_seconds, end, [self._process])
        timer.daemon = True
        timer.start()
        try:
            return _exchange(self._process, request, data)
        except (OSError, EOFError, ValueError, KeyError):
            self.stop()
            log.error(
                "a decoder process %s while it decoded an image", "took too long" if timed_out.is_set() else "died"
            )
            raise DecoderProcessFailed(timed_out=timed_out.is_set()) from None
        finally:
            timer.cancel()
            timer.join()
            if timed_out.is_set():  # perhaps just after the reply; the process must not meet the next image
                self.stop()

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError), process:  # waits for it, and closes its pipes
                pass

    def _arguments(self) -> list[str]:
        return [json.dumps(asdict(self._limits)), str(self._task_bytes)]

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-m", "app.inputs.decoder_process", *self._arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | _ALLOCATION | _ONE_THREAD,
            cwd=_SOURCE,
            # Its priority is its own, and Ctrl-C does not reach it; it ends with its stdin.
            start_new_session=True,
        )


def _exchange(
    process: subprocess.Popen[bytes], request: Mapping[str, Any], data: bytes
) -> tuple[Mapping[str, Any], bytes]:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(json.dumps({**request, "size": len(data)}).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    reply: dict[str, Any] = json.loads(process.stdout.readline())
    content = process.stdout.read(reply["size"])
    if len(content) != reply["size"]:
        raise EOFError
    return reply, content
