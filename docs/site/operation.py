"""Reference pages for operators, from the code: settings, keys of the catalogue file, metrics, events of jobs."""

from __future__ import annotations

from collections.abc import Iterator

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from app.monitoring.prometheus import gauges
from app.settings import ApiSettings
from contracts.catalogue.catalogue import ControlNetSpec, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.events import Event, Preview
from contracts.metrics import ROWS
from contracts.queue.stats import QueueStats
from contracts.settings import LogSettings, SharedSettings
from dispatcher.settings import WebhookSettings
from docs.site.markdown import attributes, summary, table
from worker.settings import WorkerSettings

_PARTS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Every part", SharedSettings),
    ("Logs", LogSettings),
    ("API", ApiSettings),
    ("Worker", WorkerSettings),
    ("Webhook dispatcher", WebhookSettings),
)
_BOUNDS = {Ge: "≥ {0.ge}", Gt: "> {0.gt}", Le: "≤ {0.le}", Lt: "< {0.lt}"}


def settings_page() -> str:
    """Return the page of settings."""
    lines = [
        "# Settings",
        "",
        "Settings are environment variables. An empty variable counts as unset; `NAME_FILE` names a file with the "
        "value. A variable that is not a setting stops the start, with the name that was probably meant. "
        "`darkroom settings` shows them for one machine.",
        "",
    ]
    shown: set[str] = set()
    for title, settings in _PARTS:
        rows = [row for name, row in _settings(settings) if name not in shown]
        shown |= {name for name, _ in _settings(settings)}
        if rows:
            lines += [f"## {title}", "", table(["variable", "default", "range", "meaning"], rows)]
    return "\n".join(lines)


def _settings(settings: type[BaseSettings]) -> Iterator[tuple[str, list[str]]]:
    """A class's variables and those of the classes inside it: name, and the cells of its row."""
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            yield from _settings(field.annotation)
            continue
        variable = prefix + name.upper()
        yield variable, [f"`{variable}`", _default(field), _range(field), field.description or ""]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    text = "models/catalogue.toml" if str(value).endswith("models/catalogue.toml") else str(value)
    return "" if value in (None, "") else f"`{text}`"


def _range(field: FieldInfo) -> str:
    bounds = [
        text.format(bound) for kind, text in _BOUNDS.items() for bound in field.metadata if type(bound) is kind
    ]
    return ", ".join(bounds)


def catalogue_page() -> str:
    """Return the page of the catalogue file."""
    lines = [
        "# The catalogue file",
        "",
        "`DARKROOM_CATALOGUE` names a TOML file with `default_model` and a table for each model, LoRA and "
        "ControlNet. A relative `source` is relative to the file. Unknown keys are refused.",
        "",
    ]
    for name, kind in (("models", ModelSpec), ("loras", LoraSpec), ("controlnets", ControlNetSpec)):
        texts = {key: text for base in reversed(kind.__mro__) for key, text in _own_attributes(base).items()}
        rows = [
            [f"`{key}`", "yes" if field.is_required() else "", texts.get(key, "")]
            for key, field in kind.model_fields.items()
        ]
        lines += [f"## [[{name}]]", "", table(["key", "required", "meaning"], rows)]
    return "\n".join(lines)


def _own_attributes(kind: type) -> dict[str, str]:
    return attributes(kind) if "Attributes:" in (kind.__dict__.get("__doc__") or "") else {}


def metrics_page() -> str:
    """Return the page of metrics."""
    rows = [
        [
            f"`darkroom_{row.name}{'_total' if row.kind == 'counter' else ''}`",
            row.kind,
            ", ".join(f"`{label}`" for label in row.labels),
            row.help,
        ]
        for row in ROWS.values()
    ]
    rows += [
        [f"`{gauge.name}`", "gauge", "", gauge.documentation] for gauge in gauges(QueueStats({}, {}, 0, {}), [])
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "`GET /metrics` shows the totals of the whole service, and gauges of its queue and workers, in "
            "Prometheus' text format or OpenMetrics. [Observing](../observing.md) says which of them to watch.",
            "",
            table(["metric", "kind", "labels", "meaning"], rows),
        ]
    )


def events_page() -> str:
    """Return the page of a job's events."""
    rows = [[f"`{name}`", text] for name, text in attributes(Preview).items()]
    return "\n".join(
        [
            "# Events",
            "",
            f"{summary(Event)} `GET /v1/jobs/{{id}}/events` streams them as server-sent events; each has `status` "
            "and `at` beside its own fields. [Calls and events](../http.md#events) says how to resume the stream.",
            "",
            f"Kinds: {attributes(Event)['kind']}",
            "",
            "## preview",
            "",
            f"{summary(Preview)}",
            "",
            table(["field", "meaning"], rows),
        ]
    )
