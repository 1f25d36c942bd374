"""Tracing is opened as the settings say, and costs nothing where it is off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import SharedSettings
from contracts.tracing.opening import open_tracing
from contracts.tracing.trace_context import TraceContext
from contracts.tracing.tracing import NO_TRACING
from tests.support.receiver import receiving
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
PARENT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)


def test_without_tracing_nothing_that_exports_is_imported_and_contexts_are_handed_on() -> None:
    program = (
        "import sys, dispatcher.main, contracts.jobs.spans\n"
        "from contracts.settings import SharedSettings\n"
        "from contracts.tracing.opening import open_tracing\n"
        "open_tracing(SharedSettings(), 'x')\n"
        # redis imports the API and the SDK's metrics by itself where they are installed.
        "ours = 'contracts.tracing.open_', 'opentelemetry.exporter', 'opentelemetry.sdk.trace', 'google'\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith(ours)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert open_tracing(SharedSettings(), "darkroom-api") is NO_TRACING
    assert NO_TRACING.start("any", "server", PARENT, {}).context is PARENT


def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "contracts.tracing.open_telemetry", None)
    with pytest.raises(SettingsError, match=r"pip install 'darkroom\[tracing\]'"):
        open_tracing(SharedSettings(tracing="on"), "darkroom-api")


def test_a_variable_of_opentelemetry_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    with pytest.raises(SettingsError, match="OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"):
        open_tracing(SharedSettings(tracing="on"), "darkroom-api")


def test_spans_are_sent_where_opentelemetrys_variables_say_under_the_name_that_they_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing = open_tracing(SharedSettings(tracing="on"), "darkroom-worker", "w1")
        span = tracing.start("process sdxl", "consumer", PARENT, {"darkroom.attempt": 1})
        assert span.context is not None
        assert span.context.trace_id == PARENT.trace_id
        span.end()
        tracing.close()
        (sent,) = collector.at("/v1/traces")
    for text in (b"process sdxl", b"pictures", b"w1", bytes.fromhex(PARENT.trace_id)):
        assert text in sent.body
    assert b"darkroom-worker" not in sent.body


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.tracing.open_telemetry._CLOSE_SECONDS", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = open_tracing(SharedSettings(tracing="on"), "darkroom-api")
    for _ in range(3_000):  # more than its queue holds
        tracing.start("any", "server", None, {}).end()
    tracing.close()
    with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        again = open_tracing(SharedSettings(tracing="on"), "darkroom-api")
        again.start("any", "server", None, {}).end()
        again.close()
        wait_until(lambda: collector.at("/v1/traces"))


def test_a_client_that_does_not_record_its_trace_decides_for_this_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing = open_tracing(SharedSettings(tracing="on"), "darkroom-api")
        unrecorded = TraceContext(PARENT.trace_id, PARENT.span_id, 0, "a=1")
        span = tracing.start("any", "server", unrecorded, {})
        assert span.context is not None
        assert (span.context.trace_id, span.context.flags, span.context.state) == (PARENT.trace_id, 0, "a=1")
        span.end()
        tracing.close()
        assert collector.at("/v1/traces") == []
