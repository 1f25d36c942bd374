"""A client of Darkroom's HTTP contract: submit a job, wait for it by polling, fetch its images."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

_POLL_SECONDS = 0.1
#: A job may wait for long, for a download perhaps: each pause is longer than the one before, up to this.
_LONGEST_POLL_SECONDS = 2.0
#: Entries of a list that one call asks for.
_PAGE_ROWS = 100
#: Timeout of an upload: a large file may travel over a slow connection.
_UPLOAD_SECONDS = 600.0
FINAL_STATES = frozenset({"completed", "failed", "cancelled"})

Json = dict[str, Any]


class ServiceError(Exception):
    """A request that the service refused or did not answer; the message is one line for a person."""


class Client:
    """HTTP client of one service. Every method raises ServiceError with the service's own message."""

    def __init__(self, url: str, timeout_seconds: float = 30.0, key: str | None = None) -> None:
        """`key` is an API key; None works only with a service that has no keys."""
        self.url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # The user names the service by its address, so proxies from the environment do not apply. Certificates,
        # which take time to read, are for https; redirects are not followed.
        has_certificate = httpx.URL(self.url).scheme != "http"
        self._http = httpx.Client(
            base_url=self.url, timeout=timeout_seconds, trust_env=False, verify=has_certificate
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def submit(self, task: str, body: Json) -> Json:
        """Submit a job and return it as it was accepted."""
        return self._call("POST", f"/v1/{task}", json=body)

    def fetch(self, job_id: str) -> Json:
        """Return the job as it is now."""
        return self._call("GET", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str) -> Json:
        """Cancel the job."""
        return self._call("POST", f"/v1/jobs/{job_id}/cancel")

    def preprocess(self, body: Json) -> Json:
        """Have a control image made: it, or the job that makes it."""
        return self._call("POST", "/v1/preprocess", json=body)

    def call(self, method: str, path: str, **query: str | None) -> Json:
        """Call any path; `query` without the parameters that are None."""
        return self._call(method, path, params={name: value for name, value in query.items() if value is not None})

    def pages(self, path: str, limit: int, **query: str | None) -> Iterator[Json]:
        """Yield up to `limit` entries of a list that comes in pages."""
        cursor: str | None = None
        while limit > 0:
            page = self.call("GET", path, limit=str(min(limit, _PAGE_ROWS)), cursor=cursor, **query)
            yield from page["data"]
            limit, cursor = limit - len(page["data"]), page["next_cursor"]
            if cursor is None:
                return

    def wait(
        self, job_id: str, on_progress: Callable[[Json], None] = lambda _: None, timeout_seconds: float = 600.0
    ) -> Json:
        """Poll until the job has completed, failed or been cancelled, and return it."""
        deadline, pause_seconds = time.monotonic() + timeout_seconds, _POLL_SECONDS
        while True:
            job = self.fetch(job_id)
            on_progress(job)
            if job["status"] in FINAL_STATES:
                return job
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"job {job_id} is still {job['status']} after {timeout_seconds:g} s, and goes on: "
                    f"darkroom jobs watch {job_id}"
                )
            time.sleep(pause_seconds)
            waits = job["status"] == "queued"
            pause_seconds = min(_LONGEST_POLL_SECONDS, 1.2 * pause_seconds) if waits else _POLL_SECONDS

    def download(self, image: Json) -> bytes:
        """Return the bytes of one of a job's images. Its signed link needs no key and may point to a bucket."""
        return self._request("GET", image["url"]).content

    def download_latents(self, job: Json) -> bytes:
        """Return the latents that a job has kept, safetensors."""
        return self._request("GET", f"/v1/jobs/{job['id']}/latents", headers=self._headers).content

    def models(self) -> list[Json]:
        """List the models of the catalogue."""
        data: list[Json] = self._call("GET", "/v1/models")["data"]
        return data

    def loras(self) -> list[Json]:
        """List the LoRAs that requests may use."""
        data: list[Json] = self._call("GET", "/v1/loras")["data"]
        return data

    def add_lora(self, file: Path, name: str | None = None) -> Json:
        """Upload a LoRA file and return the service's description of it."""
        try:
            with file.open("rb") as stream:
                fields = {} if name is None else {"name": name}
                upload = {"file": (file.name, stream)}
                return self._call("POST", "/v1/loras", files=upload, data=fields, timeout=_UPLOAD_SECONDS)
        except OSError as error:
            raise ServiceError(f"{file}: {error.strerror}") from error

    def train(self, archive: Path | None, body: Json) -> Json:
        """Begin a training on a zip file of images, or one that needs none; returns its job."""
        if archive is None:
            return self._call("POST", "/v1/trainings", json=body)
        with archive.open("rb") as file:
            files = {"file": (archive.name, file, "application/zip")}
            return self._call("POST", "/v1/trainings", files=files, data={"request": json.dumps(body)})

    def upload_image(self, data: bytes, *, is_mask: bool = False) -> Json:
        """Upload an image, or a mask in the form that requests read; returns the service's description of it."""
        query = {"mask": "true"} if is_mask else {}
        upload = {"file": ("image", data)}
        return self._call("POST", "/v1/uploads", params=query, files=upload, timeout=_UPLOAD_SECONDS)

    def remove_lora(self, name: str) -> None:
        """Remove an uploaded LoRA."""
        self._request("DELETE", f"/v1/loras/{quote(name, safe='')}", headers=self._headers)

    def root_certificate(self) -> str:
        """Return the certificate at the root of the service's signatures, PEM."""
        return self._request("GET", "/.well-known/darkroom/credentials.pem").text

    def receipt_keys(self) -> list[dict[str, str]]:
        """Return the public keys of the service's receipts, as JWK."""
        keys: list[dict[str, str]] = self._request("GET", "/.well-known/darkroom/keys.json").json()["keys"]
        return keys

    def _call(self, method: str, path: str, **options: Any) -> Json:
        answer: Json = self._request(method, path, headers=self._headers, **options).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(f"{self.url} does not answer: {error}") from error
        if response.is_error:
            raise ServiceError(_explain(response))
        return response


def encode_image(path: Path) -> str:
    """Read a file as a `data:` URL.

    Raises:
        ServiceError: the file cannot be read.
    """
    try:
        text = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from error
    return f"data:application/octet-stream;base64,{text}"


def _explain(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        return f"{response.status_code} {response.reason_phrase}"
    fields = [f"{entry['field']}: {entry['message']}{_allowed(entry)}" for entry in problem.get("errors", [])]
    return "; ".join(fields) or str(problem.get("detail") or problem.get("title") or response.status_code)


def _allowed(entry: Json) -> str:
    """What a field may be, where its message does not name that already."""
    allowed = entry.get("allowed")
    if isinstance(allowed, list):
        names = [str(value) for value in allowed if str(value) not in entry["message"]]
        return f" (allowed: {', '.join(map(str, allowed))})" if names else ""
    return "" if allowed is None or str(allowed) in entry["message"] else f" (allowed: {allowed})"
