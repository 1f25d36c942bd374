"""LoRAs over HTTP: uploaded, used by jobs, visible to their owners, removed without harm to accepted jobs."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load, save

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.hub.selection import lora_file
from contracts.hub.snapshot import fetch
from contracts.hub.source import HubSource
from contracts.jobs.preparations import Preparation
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from contracts.weights.adapters.lora_files import LoraFile, read_lora
from tests.support.hub import serving, use_hub
from tests.support.hub_repositories import loras
from tests.support.scripted_worker import ScriptedWorker

LORAS = BUILT_IN_CATALOGUE.parent / "loras"
TINT = (LORAS / "shapes-sdxl-tint.safetensors").read_bytes()
STRIPES = (LORAS / "shapes-sdxl-stripes.safetensors").read_bytes()


def _assert_refused(client: TestClient, storage: Storage, data: bytes, reason: str) -> None:
    """Assert that a file is refused with the reason and not stored."""
    response = _add(client, data)
    assert (response.status_code, response.json()["code"]) == (422, "adapter_refused")
    assert reason in response.json()["detail"]
    assert storage.find("inputs/") == []


def _add(client: TestClient, data: bytes = TINT, name: str = "mine", **options: Any) -> Any:
    headers = {"Content-Type": "application/octet-stream"} | options.pop("headers", {})
    return client.post("/v1/loras", params={"name": name}, content=data, headers=headers, **options)


def _job(client: TestClient, name: str, **fields: Any) -> Any:
    return client.post("/v1/txt2img", json={"prompt": "x", "loras": [{"name": name}], **fields})


def _ids(client: TestClient, **options: Any) -> list[str]:
    return [row["id"] for row in client.get("/v1/loras", **options).json()["data"]]


def test_an_upload_is_described_from_its_header(client: TestClient, storage: Storage) -> None:
    response = _add(client, STRIPES)

    view = response.json()
    sha256 = hashlib.sha256(STRIPES).hexdigest()
    assert response.status_code == 201
    assert (view["id"], view["family"], view["layout"], view["ranks"]) == ("mine", "sdxl", "kohya", [8])
    assert (view["models"], view["dtype"], view["changes_text"]) == (["shapes-sdxl"], "F16", False)
    assert (view["sha256"], view["size_bytes"], view["visible_to"]) == (sha256, len(STRIPES), "all")
    (key,) = storage.find("inputs/")
    assert key.startswith(f"inputs/{sha256}.")
    assert storage.read(key) == STRIPES
    assert "mine" in _ids(client)


def test_a_relative_of_lora_is_uploaded_named_and_removed_as_a_lora_is(
    client: TestClient, queue: JobQueue
) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    halves = {
        f"{layer}.hada_w{n}_{half}": shape for n in (1, 2) for half, shape in (("a", (64, 4)), ("b", (4, 64)))
    }
    response = _add(client, save({name: np.ones(shape, np.float32) for name, shape in halves.items()}))
    view = response.json()
    assert (response.status_code, view["kinds"], view["ranks"]) == (201, ["loha"], [4])
    job = _job(client, "mine").json()
    (lora,) = queue.fetch(job["id"]).parameters.loras
    assert lora.values == 4 * 64 * 4 + 2 * 64 * 64  # what the file has, and what a call makes of it
    assert client.delete("/v1/loras/mine").status_code == 204
    assert _job(client, "mine").status_code == 422


def test_a_hypernetwork_is_uploaded_named_and_removed_as_a_lora_is(
    client: TestClient, queue: JobQueue, storage: Storage
) -> None:
    tensors = {f"hypernetwork.128.{half}.0.weight": np.ones((128, 128), np.float32) for half in "kv"}
    settings = {"hypernetwork": '{"activation": "linear", "activate_output": false}'}
    _assert_refused(client, storage, save(tensors), "make it with `darkroom convert`")
    damaged = {name: value * np.nan for name, value in tensors.items()}
    _assert_refused(client, storage, save(damaged, settings), "NaN")
    response = _add(client, save(tensors, settings))
    view = response.json()
    assert (response.status_code, view["kinds"], view["layout"], view["models"]) == (
        201, ["hypernetwork"], "hypernetwork", ["shapes-sdxl"],
    )  # fmt: skip
    (lora,) = queue.fetch(_job(client, "mine").json()["id"]).parameters.loras
    assert lora.values == 2 * 128 * 128
    assert client.delete("/v1/loras/mine").status_code == 204


def test_a_file_of_the_catalogue_is_read_again_only_where_it_has_changed(
    settings: SharedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, catalogue = tmp_path / "one.safetensors", tmp_path / "catalogue.toml"
    read: list[Path] = []
    row = 'id = "one"\nfamily = "sdxl"\nsource'
    catalogue.write_text(
        f'default_model = "one"\n[[models]]\n{row} = "somebody/model"\n[[loras]]\n{row} = "{file.name}"\n'
    )

    def observed(path: Path) -> LoraFile:
        read.append(path)
        return read_lora(path)

    monkeypatch.setattr("contracts.weights.adapters.lora_files.read_lora", observed)
    shared = settings.model_copy(update={"catalogue": catalogue})

    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        ranks = []
        for data in (STRIPES, TINT):
            file.write_bytes(data)
            ranks += [client.get("/v1/loras").json()["data"][0]["ranks"] for _ in range(3)]

    assert ranks == [[8]] * 3 + [[2]] * 3
    assert read == [file] * 2


def test_loras_of_the_catalogue_are_described_from_their_files(client: TestClient) -> None:
    rows = {row["id"]: row for row in client.get("/v1/loras").json()["data"]}
    crescent = rows["shapes-sdxl-crescent"]
    assert (crescent["changes_text"], crescent["ranks"], crescent["trigger"]) == (True, [16], "crescent")
    assert crescent["sha256"] is None


def test_a_name_that_stands_for_no_value_is_never_an_id(client: TestClient) -> None:
    made_up = f"lora-{hashlib.sha256(TINT).hexdigest()[:12]}"
    for name in ("none", "nil", "undefined", "nan", "true", "false"):
        in_form = client.post("/v1/loras", files={"file": ("a.safetensors", TINT)}, data={"name": name})
        for response in (_add(client, name=name), in_form):
            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "name")
        assert client.post("/v1/loras", files={"file": (f"{name}.safetensors", TINT)}).json()["id"] == made_up
    assert _add(client, name="null").json()["id"] == made_up
    null_in_form = client.post("/v1/loras", files={"file": ("mine.safetensors", TINT)}, data={"name": "null"})
    assert null_in_form.json()["id"] == "mine"
    assert set(_ids(client)) & {"null", "none", "undefined"} == set()


def test_an_id_of_the_catalogue_is_taken_whatever_kind_it_is_of(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for name in ["shapes-sdxl", "shapes-sdxl-silhouette", "shapes-sdxl-tint"]:
        with subtests.test(name=name):
            for response in (
                _add(client, name=name),
                client.post("/v1/loras", files={"file": (f"{name}.pt", TINT)}),
            ):
                assert (response.status_code, response.json()["code"]) == (409, "conflict")
                assert f"{name!r}; choose another name" in response.json()["detail"]


def test_a_name_of_other_characters_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    for name in [
        "..",
        ".a",
        "-a",
        " a",
        "a ",
        "a\n",
        "a/b",
        "..\\a",
        "a:0.5",
        "A",
        "ａ",
        "аbc",
        "a\u200b",
        "a\0",
        "",
        "a" * 65,
    ]:
        with subtests.test(name=name):
            response = _add(client, name=name)
            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "name")


def test_a_form_names_the_lora_by_field_or_file_name(client: TestClient, subtests: pytest.Subtests) -> None:
    for filename, fields, id in [
        ("My LoRA v1.5.safetensors", {}, "my-lora-v1.5"),
        ("x.safetensors", {"name": "other"}, "other"),
        ("♥.safetensors", {}, f"lora-{hashlib.sha256(TINT).hexdigest()[:12]}"),
    ]:
        with subtests.test(filename=filename, fields=fields, id=id):
            response = client.post("/v1/loras", files={"file": (filename, TINT)}, data=fields)
            assert (response.status_code, response.json()["id"]) == (201, id)


def test_an_invalid_form_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    for files, data in [
        ({"image": ("a", TINT)}, {}),
        ({}, {"file": "text"}),
        ({"file": ("a", TINT)}, {"family": "sdxl"}),
        ({"file": ("a", TINT)}, {"name": "Ä b"}),
    ]:
        with subtests.test(files=files, data=data):
            response = client.post("/v1/loras", files=files or {"x": ("", b"")}, data=data)
            assert response.status_code in (400, 422), response.text


def test_a_repeated_upload_changes_nothing_and_another_file_of_that_name_is_a_conflict(
    client: TestClient, storage: Storage
) -> None:
    first = _add(client).json()
    again = _add(client)
    assert (again.status_code, again.json()) == (200, first)
    other = _add(client, STRIPES)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    taken = _add(client, STRIPES, name="shapes-sdxl-tint")
    assert taken.status_code == 409
    assert client.get("/v1/loras").json()["data"][-1] == first


def test_an_idempotency_key_creates_one_upload(client: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = _add(client, headers=headers)
    again = _add(client, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert _add(client, STRIPES, headers=headers).status_code == 422


def test_an_unusable_file_is_refused_with_the_reason_and_not_stored(
    client: TestClient, storage: Storage, subtests: pytest.Subtests
) -> None:
    for data, reason in [
        (pickle.dumps({"a": [1, 2, 3]}), "pickle"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"", "not a safetensors file"),
        (TINT[: len(TINT) // 2], "truncated"),
        (TINT + b"more", "4 bytes that belong to no tensor"),
        ((LORAS / "bad" / "wrong-family.safetensors").read_bytes(), "maps 320 to 320 channels"),
        ((LORAS / "bad" / "no-adapter.safetensors").read_bytes(), "is not part of a LoRA"),
        ((LORAS / "bad" / "not-a-number.safetensors").read_bytes(), "contains NaN or infinite values"),
    ]:
        with subtests.test(data=data, reason=reason):
            _assert_refused(client, storage, data, reason)
            assert "mine" not in _ids(client)


def _header(text: str, data: bytes = b"1234") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


def _with_settings(settings: str) -> bytes:
    return bytes(save(load(TINT), {"format": "pt", "lora_adapter_metadata": settings}))


def test_a_hostile_file_is_refused_with_the_reason_and_not_stored(
    client: TestClient, storage: Storage, subtests: pytest.Subtests
) -> None:
    for data, reason in [
        (
            _header(f'{{"a.lora_A.weight":{{"dtype":"F32","shape":[{"1e308," * 8000}1],"data_offsets":[0,4]}}}}'),
            "long",
        ),
        (_header('{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}'), "whole numbers"),
        (_header('{"a":' + "[" * 100_000), "not an object"),
        (_header('{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'), "malformed"),
        (struct.pack("<Q", 5 * 2**20) + b"{", "at most 4194304"),
        (_with_settings('{"unet.alpha_pattern": {"([a-z0-9._]+)+!": 1}}'), "not patterns"),
        (_with_settings('{"unet.target_modules": "(a+)+!"}'), "not patterns"),
        (_with_settings('{"unet.lora_alpha": Infinity}'), "is not a number"),
        (_with_settings("[" * 9000), "nested too deeply"),
    ]:
        with subtests.test(reason):
            _assert_refused(client, storage, data, reason)


def test_a_file_over_the_limit_is_refused_and_not_stored(settings: SharedSettings, storage: Storage) -> None:
    small = ApiSettings(shared=settings, max_lora_bytes=len(TINT) - 1)
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        assert _add(client).status_code == 413
        # A form may be slightly larger than its file.
        big = save({"a": np.zeros(1 << 17, np.uint8)})
        assert client.post("/v1/loras", files={"file": ("a", TINT + big)}).status_code == 413
    assert storage.find("inputs/") == []


def test_a_lora_that_came_from_a_hub_is_described_from_the_cache(
    settings: SharedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HubSource("org/lora")
    lines = ['default_model = "m"']
    for kind, id, place in (("models", "m", LORAS.parent / "shapes-sdxl"), ("loras", "far", source)):
        lines += [f"[[{kind}]]", f'id = "{id}"', 'family = "sdxl"', f'source = "{place}"']
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text("\n".join(lines))
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/lora", loras("stripes"))
        fetch(source, lora_file())
    app = create_app(ApiSettings(shared=settings.model_copy(update={"catalogue": catalogue})))
    with TestClient(app) as client:
        (view,) = client.get("/v1/loras").json()["data"]
    assert (view["id"], view["layout"], view["ranks"]) == ("far", "kohya", [8])


def test_an_unsupported_media_type_is_refused(client: TestClient) -> None:
    assert _add(client, headers={"Content-Type": "image/png"}).status_code == 415


def test_a_job_records_the_content_of_the_lora_it_names(client: TestClient, queue: JobQueue) -> None:
    view = _add(client).json()

    job = _job(client, "mine", seed=1).json()

    (lora,) = queue.fetch(job["id"]).parameters.loras
    values = sum(array.size for array in load(TINT).values())
    assert (lora.name, lora.sha256, lora.values) == ("mine", view["sha256"], values)
    assert lora.key is not None
    assert lora.key.startswith(f"inputs/{view['sha256']}.")
    schema = client.get("/v1/models/shapes-sdxl").json()
    assert "mine" in schema["loras"]


def test_a_lora_of_another_family_is_refused(client: TestClient) -> None:
    _add(client)
    response = _job(client, "mine", model="shapes-flux")
    assert response.status_code == 422
    assert "works with sdxl models" in response.json()["detail"]


def test_an_unknown_name_is_refused_with_the_known_ones(client: TestClient) -> None:
    _add(client)
    response = _job(client, "nobodys")
    assert response.status_code == 422
    assert "mine" in response.json()["errors"][0]["allowed"]


def test_a_removed_lora_is_kept_for_the_jobs_accepted_with_it(
    client: TestClient, queue: JobQueue, storage: Storage, retention: Retention, worker: ScriptedWorker
) -> None:
    _add(client)
    job = _job(client, "mine").json()
    (key,) = storage.find("inputs/")
    queue.connection.zadd("darkroom:inputs", {key: 0})  # the upload itself has expired
    assert client.delete("/v1/loras/mine").status_code == 204
    assert _job(client, "mine").status_code == 422
    assert client.delete("/v1/loras/mine").status_code == 404
    retention.sweep()
    claim = worker.claim()
    assert claim.job.parameters.loras[0].key == key
    assert storage.read(key) == TINT

    worker.complete(claim)
    assert client.delete(f"/v1/jobs/{job['id']}").status_code in (200, 204)
    retention.sweep()
    assert storage.find("inputs/") == []


def test_a_lora_is_kept_until_it_is_removed(
    client: TestClient, queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    _add(client)
    _add(client, name="again")
    (key,) = storage.find("inputs/")
    queue.connection.zadd("darkroom:inputs", {key: 0})
    retention.sweep()
    assert client.delete("/v1/loras/mine").status_code == 204
    retention.sweep()
    assert storage.exists(key)
    assert client.delete("/v1/loras/again").status_code == 204
    retention.sweep()
    assert storage.find("inputs/") == []


def test_a_rerun_uses_the_same_lora(client: TestClient, worker: ScriptedWorker, queue: JobQueue) -> None:
    _add(client)
    job = _job(client, "mine").json()
    worker.complete(worker.claim())
    again = client.post(f"/v1/jobs/{job['id']}/rerun").json()
    first, second = (queue.fetch(id).parameters.loras for id in (job["id"], again["id"]))
    assert first == second


def test_loras_of_the_catalogue_cannot_be_removed_over_http(client: TestClient) -> None:
    response = client.delete("/v1/loras/shapes-sdxl-tint")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


# -- owners ----------------------------------------------------------------------------------------------


@pytest.fixture
def clients(settings: SharedSettings, queue: JobQueue) -> Iterator[Callable[[str], TestClient]]:
    """Return the client with the key of `admin`, or of `ann` or `bob`, who may only generate."""
    keys = ApiKeyStore(queue.connection)
    tokens = {"admin": keys.create("a", "admin", scopes=[Scope.GENERATE, Scope.ADMIN])[1]}
    tokens |= {name: keys.create(name, name)[1] for name in ("ann", "bob")}
    with TestClient(create_app(ApiSettings(shared=settings)), raise_server_exceptions=False) as client:

        def client_of(name: str) -> TestClient:
            client.headers["Authorization"] = f"Bearer {tokens[name]}"
            return client

        yield client_of


def test_an_upload_is_visible_to_its_owner_only(clients: Callable[[str], TestClient]) -> None:
    view = _add(clients("ann")).json()
    assert view["visible_to"] == "owner"
    assert _job(clients("ann"), "mine").status_code == 202
    assert "mine" not in _ids(clients("bob"))
    assert _job(clients("bob"), "mine").status_code == 422
    assert clients("bob").delete("/v1/loras/mine").status_code == 404
    assert _add(clients("bob"), STRIPES).status_code == 201  # his own LoRA of that name
    assert _ids(clients("ann")).count("mine") == 1
    assert clients("ann").delete("/v1/loras/mine").status_code == 204
    assert "mine" in _ids(clients("bob"))


def test_an_owners_lora_takes_precedence_over_a_shared_one(
    clients: Callable[[str], TestClient], queue: JobQueue
) -> None:
    """So an admin's upload does not change other requests."""
    own = _add(clients("ann"), STRIPES).json()
    shared = _add(clients("admin")).json()
    found = {}
    for name in ("ann", "bob"):
        job = _job(clients(name), "mine").json()
        found[name] = queue.fetch(job["id"]).parameters.loras[0].sha256
        assert _ids(clients(name)).count("mine") == 1
    assert found == {"ann": own["sha256"], "bob": shared["sha256"]}


def test_an_admins_upload_is_shared_and_only_an_admin_can_remove_it(clients: Callable[[str], TestClient]) -> None:
    assert _add(clients("admin")).json()["visible_to"] == "all"
    assert _job(clients("bob"), "mine").status_code == 202
    assert clients("bob").delete("/v1/loras/mine").status_code == 403
    assert clients("admin").delete("/v1/loras/mine").status_code == 204
    assert "mine" not in _ids(clients("bob"))


def test_a_lora_shows_how_its_download_goes_on_until_a_worker_has_it(client: TestClient, queue: JobQueue) -> None:
    def state(id: str) -> tuple[bool, str | None]:
        (row,) = (row for row in client.get("/v1/loras").json()["data"] if row["id"] == id)
        return row["ready"], row["preparing"] and row["preparing"]["state"]

    def report(**fields: Any) -> None:
        publish(queue.connection, WorkerReport(id="w", state="idle", **fields), ttl_seconds=60)

    _add(client, name="mine")
    assert (state("shapes-sdxl-tint"), state("mine")) == ((False, None), (True, None))
    report(preparing=[Preparation(name="lora:shapes-sdxl-tint", state="fetching", bytes_done=5, bytes_total=10)])
    assert state("shapes-sdxl-tint") == (False, "fetching")
    report(ready=["lora:shapes-sdxl-tint"])
    assert state("shapes-sdxl-tint") == (True, None)
