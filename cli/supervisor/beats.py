"""Receives the beats of child processes over a socket, in the form of systemd's sd_notify(3) (`WATCHDOG=1`).

The kernel says which process sent one. Knows nothing of the processes.
"""

from __future__ import annotations

import secrets
import socket
import struct

#: struct ucred of <sys/socket.h>: process, user, group.
_CREDENTIALS = struct.Struct("3i")


class BeatReceiver:
    """A socket that child processes send beats to."""

    def __init__(self) -> None:
        # An abstract address leaves no file behind when `darkroom up` is killed.
        name = f"darkroom-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}")
        self._socket.setblocking(False)
        #: What the children find in NOTIFY_SOCKET.
        self.address = f"@{name}"

    def receive(self) -> set[int]:
        """Return the ids of the processes that have sent a beat since the last call."""
        pids: set[int] = set()
        while True:
            try:
                text, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return pids
            if b"WATCHDOG=1" in text.split(b"\n"):
                pids.update(
                    _CREDENTIALS.unpack(data)[0]
                    for level, kind, data in ancillary
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
                )

    def close(self) -> None:
        """Close the socket; later beats are lost."""
        self._socket.close()
