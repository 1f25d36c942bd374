"""The table of Redis keys: all code uses it, and it describes the keys that the service writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rq.suspension import suspend

from app.inputs.decoder import InputImage
from contracts.auth.api_keys import ApiKeyStore
from contracts.auth.caller_options import CallerOptions
from contracts.auth.signed_links import LinkSigner
from contracts.batches.batches import BatchStore
from contracts.batches.files import FileStore
from contracts.batches.records import Batch, Round, StartedLine
from contracts.jobs.records import JobState, WebhookRecord
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import Outbox, Outcome
from contracts.outbound.signing import Secrets
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.attendance import AttendedJobs
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import CallIdentity, Idempotency
from contracts.queue.limits import Quota, SubmitLimits
from contracts.queue.operations import Operations
from contracts.queue.retries import RepeatableCall, Retries
from contracts.redis.connection import check_writes
from contracts.redis.keys import TABLE, Key
from contracts.requests.schema import WebhookEvent
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.uploads.adapters import CONTROLNETS, INVERSIONS, IP_ADAPTERS, LORAS, UploadRegistry
from contracts.uploads.images import remember
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from contracts.weights.adapters.inversion_files import InversionFacts
from contracts.weights.adapters.ip_adapter_files import IpAdapterFacts
from contracts.weights.adapters.lora_files import AdapterFacts
from contracts.weights.controls.controlnet_files import ControlNetFacts
from tests.support.claims import ANY_JOB, MakeClaims, take
from tests.support.parameters import parameters

ROOT = Path(__file__).parents[3]
PRODUCT = ("app", "bench", "cli", "contracts", "dispatcher", "worker")
#: A key in a literal; not `urn:darkroom:…`, nor `darkroom: message`.
LITERAL = re.compile(r"(?<![\w:])(?:darkroom|rq):[a-z][\w:]*")
#: Keys that only RQ writes: its registration of workers.
RQS_OWN = {"rq:worker:", "rq:clean_registries"}
IMAGE = InputImage(sha256="0" * 64, width=8, height=8, format="png", stored_format="png", data=b"")


def literals(*folders: str) -> list[tuple[str, str]]:
    """Return each key that a file contains as a literal, with the file's path."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return [
        (str(path.relative_to(ROOT)), key) for path in files for key in LITERAL.findall(path.read_text("utf-8"))
    ]


def test_only_the_table_spells_out_keys() -> None:
    assert {path for path, _ in literals(*PRODUCT)} == {"contracts/redis/keys.py"}


def test_keys_in_tests_are_in_the_table() -> None:
    known = (*TABLE.values(), *RQS_OWN)
    assert [key for key in literals("tests") if not key[1].startswith(known)] == []


def row_of(key: str) -> Key:
    """Return the row whose pattern matches a key; the longest if several match."""
    rows = [row for row in TABLE.values() if re.fullmatch(re.sub(r"\{\w+\}", ".+", row.pattern), key)]
    return max(rows, key=len)


@pytest.fixture
def full_redis(
    queue: JobQueue, storage: Storage, settings: SharedSettings, make_claims: MakeClaims, tmp_path: Path
) -> JobQueue:
    """A Redis to which every part of the service has written."""
    connection = queue.connection
    retention = Retention(connection, storage, 60)
    swept = retention.retain("1" * 64, 0)
    retention.sweep()
    connection.zadd(TABLE["garbage"], {swept: 1})  # its sweeper died
    lease = Idempotency(connection, 60).begin(CallIdentity("me", "k", "POST /", b""))
    Idempotency(connection, 60).run(
        CallIdentity("me", "l", "POST /", b""), lambda _: "x", lambda id: id, lambda id: id
    )
    webhook = WebhookRecord(url="https://a/", events=tuple(WebhookEvent), site="a:443", base="http://b")
    assert make_claims().claim(ANY_JOB) is None
    for ending in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, None, JobState.QUEUED):
        record = queue.submit(
            parameters(image=retention.retain("2" * 64, 60)),
            owner="me",
            deadline_seconds=60,
            webhook=webhook,
            idempotency=lease if ending is JobState.QUEUED else None,  # type: ignore[arg-type]
            limits=SubmitLimits(quota=Quota("key", 9)),
        )
        if ending is JobState.CANCELLED:
            queue.cancel(record.id)
        elif ending is not JobState.QUEUED:
            claim = take(make_claims("second"))
            if ending is not None:
                make_claims().finish(claim, ending, measured={"work": record.parameters.work, "seconds": 1})
    outbox = Outbox(connection, "d", 60)
    for outcome in (Outcome("again", pause_seconds=60), None):
        message = outbox.claim(())
        assert message is not None
        if outcome is not None:
            outbox.finish(message, outcome)
    publish(connection, WorkerReport(id="w", state="idle"), 60)
    for workers in (TABLE["rq_workers"], TABLE["rq_queue_workers"] + "q"):  # written by RQ, cleaned by us
        connection.sadd(workers, "rq:worker:w")
    remember(queue.connection, "me", IMAGE, 60)
    file = tmp_path / "lora"
    file.write_bytes(b"x")
    facts = AdapterFacts(family="sdxl", layout="peft", ranks=(4,), values=9, dtype="F32", changes_text=False)
    inversion = InversionFacts(vectors=1, widths={"clip_l": 4}, tensors={"clip_l": "x"})
    look = IpAdapterFacts(kind="plain", tokens=4, image_width=1, width=1, layers=1, key_values=1)
    for owner in ("me", None):
        registry = UploadRegistry(connection, storage, retention)
        registry.add(LORAS, "x", owner, file, "3" * 64, {"family": "sdxl", "facts": facts})
        registry.add(INVERSIONS, "x", owner, file, "3" * 64, {"family": "sdxl", "facts": inversion})
        fields = {"family": "sdxl", "image_encoder": "x", "facts": look}
        registry.add(IP_ADAPTERS, "x", owner, file, "3" * 64, fields)
        net = {"family": "sdxl", "facts": ControlNetFacts(values=1)}
        registry.add(CONTROLNETS, "x", owner, file, "3" * 64, net)
    requests = FileStore(connection, storage, retention).add(file, "me", "x", "batch", 60, ByteLimit("me", 0))
    batches = BatchStore(connection, storage, retention)
    batches.create(
        Batch(
            id="batch_x", owner="me", api_key="", base="", endpoint="", completion_window="24h",
            input_file_id=requests.id, input_key=requests.key, input_bytes=1, output_seconds=60,
        ),
        60,
    )  # fmt: skip
    turn = batches.claim()
    assert turn is not None
    line = StartedLine(job="x", custom_id="x")
    batches.commit(turn, Round(started={1: line}, parts={"output": requests.key}))
    keys = ApiKeyStore(connection)
    keys.count_call(keys.create("x")[0].id, 9)
    CallerOptions(connection).set("key", {"name": 1})
    LinkSigner(connection, settings, storage).prepare()
    check_writes(connection)
    connection.lock(TABLE["signer_lock"], timeout=30).acquire()
    Secrets(connection, settings).current("me")
    counters = Counters()
    counters.count("warm_hits", model="m")
    TotalsWriter(connection, counters).flush()
    operations = Operations(queue, 60)
    operations.pause("m", by="key")
    operations.drain("w", by="key")
    AttendedJobs(connection, 60).extend([queue.submit(parameters(), owner="me").id], 60)
    with Retries(connection).accepting(RepeatableCall("me", "5" * 64, is_retry=False)):
        pass
    with Retries(connection).accepting(RepeatableCall("me", "6" * 64, is_retry=False)) as made:
        made("x")
    connection.hset(TABLE["hub_commits"], "org/name@main", "4" * 40)
    suspend(connection)
    return queue


def test_stored_keys_have_the_types_in_the_table(full_redis: JobQueue) -> None:
    found = {key: full_redis.connection.type(key) for key in full_redis.connection.scan_iter("*")}

    assert {key: row_of(key).type for key in found} == found
    stored = {name for name, row in TABLE.items() if row.type not in ("channel", "name")}
    assert stored == {name for name, row in TABLE.items() if row in map(row_of, found)}


def test_only_the_keys_with_a_ttl_in_the_table_expire(full_redis: JobQueue) -> None:
    expiring = {row_of(key) for key in full_redis.connection.scan_iter("*") if full_redis.connection.ttl(key) >= 0}

    names = (
        "idempotency owner_idempotency retries worker worker_state upload rate caller_options "
        "flushed write_probe signer_lock usage file owner_uploads"
    )
    assert expiring == {TABLE[name] for name in names.split()}
