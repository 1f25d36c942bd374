"""What a worker's loop works with: Redis, the queue, the models, the storage. Opened and closed by its caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis import Redis

from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.storage import Storage
from contracts.tracing.tracing import NO_TRACING, Tracing
from worker.pool.pool import Pool
from worker.safety.stage import SafetyStage
from worker.settings import WorkerSettings

if TYPE_CHECKING:  # their packages are an extra
    from contracts.provenance.credentials import ContentCredentials
    from contracts.provenance.receipts.signatures import ReceiptSigner


@dataclass(frozen=True)
class WorkerResources:
    """The connections and stores of one worker process.

    Attributes:
        connection: for RQ; returns bytes.
        counters: what the worker's parts count; added to the service's totals while it works.
        credentials: signs images; None: they are not signed.
        receipt_signer: signs receipts, with hashes of latents; None: they are neither signed nor hashed.
        safety: checks images; None: they are not checked.
        tracing: writes the spans of jobs; the caller closes it.
    """

    connection: Redis
    claims: Claims
    pool: Pool
    storage: Storage
    settings: WorkerSettings
    counters: Counters = field(default_factory=Counters)
    credentials: ContentCredentials | None = None
    receipt_signer: ReceiptSigner | None = None
    safety: SafetyStage | None = None
    tracing: Tracing = NO_TRACING
