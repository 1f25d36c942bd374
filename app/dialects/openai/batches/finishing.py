"""The end of a batch: the parts of its results become files, with a line for each request that was not run."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.dialects.openai.batches.lines import parse_line, read_lines
from app.dialects.openai.batches.results import ERROR, OUTPUT, ResultFiles
from app.services import Services
from contracts.batches.batches import BatchLease
from contracts.batches.files import StoredFile
from contracts.batches.records import Batch, BatchStatus
from contracts.uploads.owner_bytes import ByteLimit


def finish_batch(services: Services, lease: BatchLease, going_on: Callable[[], None]) -> None:
    """Write a batch's files of results, and end it. May be repeated, and then writes the same files again.

    Args:
        going_on: called for each line and part; what it raises ends the work.

    Raises:
        NotFound: a part of the results is gone.
        LeaseLost, Unavailable: as `BatchStore.commit`.
    """
    batch = services.batches.fetch(lease.id)
    ending = batch.ending or BatchStatus.COMPLETED
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        results = ResultFiles(batch, Path(name))
        for kind in (OUTPUT, ERROR):
            for key in services.batches.parts(batch.id, kind):
                going_on()
                part = Path(name) / "part"
                services.storage.read_file(key, part)
                results.append_file(kind, part)
        if ending is not BatchStatus.COMPLETED and batch.total:
            _add_unrun(services, batch, ending, results, going_on)
        files = {kind: _store(services, batch, kind, path) for kind, path in results.paths().items()}
    ids = {f"{kind}_file_id": file.id for kind, file in files.items()}
    services.batches.finish(lease, ending, list(files.values()), **ids)


def _add_unrun(
    services: Services, batch: Batch, ending: BatchStatus, results: ResultFiles, going_on: Callable[[], None]
) -> None:
    for line in read_lines(services.storage, batch, services.settings.max_body_bytes):
        going_on()
        request = parse_line(line.data or b"", batch.endpoint)
        if request is not None:
            results.add_unrun(line.number, request.custom_id, ending)


def _store(services: Services, batch: Batch, kind: str, path: Path) -> StoredFile:
    id = f"file-{hashlib.sha256(f'{batch.id} {kind}'.encode()).hexdigest()[:24]}"
    limit = ByteLimit(batch.owner, 0)  # counted, and not refused: the results exist already
    filename = f"{batch.id}_{kind}.jsonl"
    return services.files.write(id, path, batch.owner, filename, "batch_output", batch.output_seconds, limit)
