"""The worker's side of the queue, for tests that need no worker."""

from __future__ import annotations

from collections.abc import Callable

from contracts.queue.leases import Claims

#: `make_claims("second", lease_seconds=1)`: the claims of a worker of that name, with these queue settings.
MakeClaims = Callable[..., Claims]
