"""Environment variables that nothing reads are found, with what they were probably meant as."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from app.settings import ApiSettings
from contracts.settings import (
    KeySettings,
    LogSettings,
    OutboundSettings,
    QueueSettings,
    Settings,
    SharedSettings,
)
from contracts.variables import RENAMED, unknown_variables, warn_about_unknown_variables
from dispatcher.settings import WebhookSettings
from tests.support.forked_programs import ForkedProgram
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
CLASSES: tuple[type[Settings], ...] = (
    *(SharedSettings, QueueSettings, KeySettings, OutboundSettings, LogSettings),
    *(ApiSettings, WorkerSettings, WebhookSettings),
)
SETTINGS = [
    f"{kind.model_config['env_prefix']}{name}".upper()
    for kind in CLASSES
    for name, field in kind.model_fields.items()
    if not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings))
]


def unknown(*names: str) -> list[str]:
    return [variable.name for variable in unknown_variables(dict.fromkeys(names, "1"))]


def test_no_setting_of_any_part_is_unknown() -> None:
    assert len(SETTINGS) > 100
    assert unknown(*SETTINGS, *(f"{name}_FILE" for name in SETTINGS), *map(str.lower, SETTINGS), *RENAMED) == []


def test_every_setting_with_one_letter_missing_is_unknown_and_the_remedy_names_the_setting() -> None:
    misspelt = {name[:-2] + name[-1]: name for name in SETTINGS}
    found = {variable.name: variable.remedy for variable in unknown_variables(dict.fromkeys(misspelt, "1"))}
    assert found == {name: f"did you mean {meant}?" for name, meant in misspelt.items()}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("DARKROOM_PORT", "did you mean DARKROOM_API_PORT?"),
        ("DARKROOM_API_REDIS_URL", "did you mean DARKROOM_REDIS_URL?"),
        ("DARKROOM_MAX_ROWS", "did you mean DARKROOM_WORKER_MAX_ROWS?"),
        ("DARKROOM_WORKER__DEVICE", "did you mean DARKROOM_WORKER_DEVICE?"),
        ("DARKROOM_WORKERS_DEVICE", "did you mean DARKROOM_WORKER_DEVICE?"),
        ("DARKROOM_REDIS_URL_FIEL", "did you mean DARKROOM_REDIS_URL?"),
        ("darkroom_redis_url_file", "did you mean DARKROOM_REDIS_URL_FILE?"),
        ("Darkroom_Server", "did you mean DARKROOM_SERVER?"),
        ("DARKROOM_WORKER_PORT", "did you mean DARKROOM_API_PORT?"),
        ("DARKROOM_XYZZY", "remove it; `darkroom settings` lists all settings"),
        ("DARKROOM_", "remove it; `darkroom settings` lists all settings"),
        ("DARKROOM_" + "A" * 100_000, "remove it; `darkroom settings` lists all settings"),
        ("DARKROOM_QUEUE_RESIDENCY_SECONDS", "set DARKROOM_WORKER_RESIDENCY_SECONDS"),
    ],
)
def test_an_unknown_variable_is_named_with_what_was_probably_meant(name: str, remedy: str) -> None:
    (found,) = unknown_variables({name: "1", "DARKROOM_DATA": "data", "PATH": "/bin"})
    assert (found.name, found.remedy) == (name, remedy)


@pytest.mark.parametrize(
    "name", ["DARKROOM_WORKER_BATCHING", "DARKROOM_WORKER_MAX_BATCH_IMAGES", "darkroom_worker_max_batch_pixels"]
)
def test_a_variable_of_an_earlier_release_is_named_with_what_there_is_instead(name: str) -> None:
    (found,) = unknown_variables({name: "1"})
    assert "since 0.4.0; see DARKROOM_WORKER_" in found.remedy


def test_a_variable_that_is_empty_counts_as_unset() -> None:
    assert unknown_variables({"DARKROOM_WORKER_BATCHING": "", "DARKROOM_XYZZY": ""}) == []


def test_what_kubernetes_says_of_a_service_is_no_misspelt_setting() -> None:
    links = {
        "DARKROOM_WEB_SERVICE_HOST": "10.0.0.1",
        "DARKROOM_WEB_SERVICE_PORT": "8000",
        "DARKROOM_WEB_SERVICE_PORT_HTTP": "8000",
        "DARKROOM_WEB_PORT": "tcp://10.0.0.1:8000",
        "DARKROOM_WEB_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "DARKROOM_WEB_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_variables(links) == []


def test_every_variable_that_this_repository_reads_or_sets_is_known() -> None:
    files = [ROOT / "Makefile", ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.y*ml")]
    files += [path for part in ("app", "bench", "cli", "tests") for path in (ROOT / part).rglob("*.py")]
    reading = re.compile(
        r"environ(?:\.get\(|\[)\"(DARKROOM_\w+)|\$\{(DARKROOM_\w+)|^\s*(DARKROOM_\w+)[:=]", re.MULTILINE
    )
    named = {
        name for path in files for found in reading.findall(path.read_text("utf-8")) for name in found if name
    }
    assert {"DARKROOM_CHAOS_JOBS", "DARKROOM_SERVER", "DARKROOM_PUBLISH"} <= named
    assert unknown(*named) == []


def test_a_warning_names_the_variable_and_never_its_value(caplog: pytest.LogCaptureFixture) -> None:
    warn_about_unknown_variables({"DARKROOM_WEBHOOK_SECRETS": "whsec_private"})
    assert "DARKROOM_WEBHOOK_SECRETS is not a setting" in caplog.text
    assert "did you mean DARKROOM_WEBHOOK_SECRET?" in caplog.text
    assert "whsec_private" not in caplog.text


@pytest.mark.parametrize("module", ["app.__main__", "worker.main", "dispatcher.main"])
def test_each_process_names_unknown_variables_at_its_start(module: str) -> None:
    variables = {"DARKROOM_WORKER_BATCHING": "1", "DARKROOM_LOG_FORMAT": "text", "DARKROOM_HANG_SECONDS": "0"}
    process = ForkedProgram(module, os.environ | variables)  # up to a setting that is invalid
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert log.count("DARKROOM_WORKER_BATCHING is not a setting and has no effect") == 1
