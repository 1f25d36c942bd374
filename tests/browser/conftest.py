"""Fixtures: one service for all tests, with API keys; Chromium; and a page whose complaints fail the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.studio import Studio
from tests.support.running_service import RunningService

#: What a page waits for: a job of a small model takes seconds, and minutes on a machine that does much else.
PATIENCE_MILLISECONDS = 120_000
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`darkroom up` that takes jobs of any length, so that a test can have one that does not end by itself."""
    environment = {"DARKROOM_API_MAX_JOB_SECONDS": "1000000"}
    service = RunningService(tmp_path_factory.mktemp("service") / "data", environment=environment)
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def key(service: RunningService) -> str:
    """An API key with all rights. From now on the service answers nobody without one."""
    options = ["--scope", "generate", "--scope", "admin", "--calls-per-minute", "0", "--data", str(service.data)]
    command = [sys.executable, "-m", "cli.main", "keys", "create", "browser", *options]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    service.http.headers["Authorization"] = f"Bearer {token}"
    return token


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or the one that CHROMIUM names."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path is not None, "needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_QUIET, _OFFLINE])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A window of its own, without a key; a script that fails in it, or that the policy stops, fails the test."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    # The browser itself reports each answer of 4xx and 5xx, and each connection that fails.
    context.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext, service: RunningService, key: str) -> Page:
    """The page, with a key, once it shows the form."""
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('darkroom.key', '{key}')")
    page.goto(service.url)
    page.wait_for_selector("#field-prompt")
    return page


@pytest.fixture
def studio(page: Page, service: RunningService) -> Iterator[Studio]:
    """What a person does on the page. Jobs that a test leaves behind are cancelled."""
    studio = Studio(page, service)
    yield studio
    for job in service.http.get("/v1/jobs?limit=100").json()["data"]:
        if job["status"] in ("queued", "running"):
            service.http.post(f"/v1/jobs/{job['id']}/cancel")


@pytest.fixture
def picture(service: RunningService, key: str, tmp_path: Path) -> Path:
    """A PNG that the service generated, with its parameters inside."""
    job = service.run("txt2img", prompt="a green star on a white background", seed=41, num_inference_steps=9)
    path = tmp_path / "generated.png"
    path.write_bytes(service.bytes_of(job))
    return path
