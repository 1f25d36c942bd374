"""Compose, Kubernetes, alerts and dashboards name what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.settings import LogSettings, OutboundSettings, QueueSettings, Settings, SharedSettings
from dispatcher.settings import WebhookSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana/dashboards/darkroom.json"


def documents() -> list[Path]:
    return [ROOT / "docker-compose.yml", ROOT / "Dockerfile", *DEPLOY.rglob("*.y*ml"), DEPLOY / "README.md"]


def variables() -> set[str]:
    kinds = (
        SharedSettings,
        LogSettings,
        QueueSettings,
        OutboundSettings,
        ApiSettings,
        WorkerSettings,
        WebhookSettings,
    )
    return {
        f"{kind.model_config.get('env_prefix', '')}{name}".upper() for kind in kinds for name in kind.model_fields
    }


@pytest.fixture
def exposed(settings: SharedSettings) -> set[str]:
    """Names of all series that /metrics can show."""
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        page = client.get("/metrics").text
    ends = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)
    return {name + end for name, kind in kinds for end in ends[kind]}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_is_set_is_a_setting(path: Path) -> None:
    own = {"DARKROOM_PUBLISH", "DARKROOM_VERSION", "DARKROOM_WORKER_MEMORY"}  # compose's, not ours
    named = set(re.findall(r"\bDARKROOM_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    unknown = {name.removesuffix("_FILE") for name in named} - variables() - own
    assert unknown - {"DARKROOM_CHECK_ALL"} == set()


#: What containers set themselves, or each process makes for itself.
CONTAINERS_OWN = {
    "DARKROOM_REDIS_URL", "DARKROOM_DATA", "DARKROOM_API_HOST", "DARKROOM_API_PORT", "DARKROOM_API_FD",
    "DARKROOM_WORKER_NAME", "DARKROOM_WORKER_LORA_FOLDER", "DARKROOM_WEBHOOK_NAME", "DARKROOM_API_ALLOW_ANONYMOUS",
}  # fmt: skip


@pytest.mark.parametrize(
    ("service", "kinds"),
    [
        ("api", (SharedSettings, LogSettings, QueueSettings, OutboundSettings, ApiSettings)),
        ("worker", (SharedSettings, LogSettings, QueueSettings, WorkerSettings)),
        ("dispatcher", (SharedSettings, LogSettings, OutboundSettings, WebhookSettings)),
    ],
)
def test_every_setting_in_the_environment_or_in_dotenv_reaches_its_container(
    service: str, kinds: tuple[type[Settings], ...]
) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    given = compose["services"][service]["environment"]
    wanted = {
        f"{kind.model_config['env_prefix']}{name}".upper()
        for kind in kinds
        for name, field in kind.model_fields.items()
        if field.description
    }
    assert wanted - CONTAINERS_OWN - given.keys() == set(), f"add them to {service} in docker-compose.yml"
    fixed = {name for name in wanted & given.keys() if given[name] and f"${{{name}" not in str(given[name])}
    assert fixed == {"DARKROOM_API_PUBLISHED"} & wanted  # by where the port is published


@pytest.mark.parametrize(
    "path", [DASHBOARD, DEPLOY / "prometheus/rules.yml", DEPLOY / "kubernetes/keda/scaledobject.yaml"]
)
def test_every_figure_that_is_looked_at_exists(path: Path, exposed: set[str]) -> None:
    named = set(re.findall(r"darkroom_[a-z_]+", path.read_text(encoding="utf-8")))
    assert named
    assert named - exposed == set()


def test_every_alert_links_to_its_section_of_the_runbook() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}
    sections = set(
        re.findall(r"^### (Darkroom\w+)$", (DEPLOY / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert links == {name: f"deploy/README.md#{name.lower()}" for name in sections}


def test_the_dashboard_begins_with_single_figures_explains_every_panel_and_can_be_narrowed() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels, variables = dashboard["panels"], {row["name"]: row for row in dashboard["templating"]["list"]}
    assert [panel["type"] for panel in panels[:6]] == ["stat"] * 6
    assert [panel["title"] for panel in panels if len(panel.get("description", "").split()) < 4] == []
    assert variables.keys() == {"datasource", "model", "worker"}
    expressions = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    assert set(re.findall(r"\$(\w+)", expressions)) == {"model", "worker"}
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    boxes = [panel["gridPos"] for panel in panels]
    cells = [(box["x"] + x, box["y"] + y) for box in boxes for x in range(box["w"]) for y in range(box["h"])]
    assert len(cells) == len(set(cells))  # none lies on another


def test_every_panel_of_the_dashboard_asks_for_something() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert all(target["expr"] for panel in panels for target in panel["targets"])


@pytest.mark.parametrize("folder", ["base", "fetch", "gpu", "hub", "keda"])
def test_a_kustomization_names_files_that_are_there(folder: str) -> None:
    at = DEPLOY / "kubernetes" / folder
    rows = yaml.safe_load((at / "kustomization.yaml").read_text(encoding="utf-8"))
    named = [*rows["resources"], *(patch["path"] for patch in rows.get("patches", []))]
    assert [name for name in named if not (at / name).exists()] == []


def test_compose_serves_everybody_only_while_its_port_is_published_on_loopback() -> None:
    api = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["api"]
    (port,) = api["ports"]
    assert api["environment"]["DARKROOM_API_PUBLISHED"] == port.removesuffix(":8000")
    assert "DARKROOM_API_ALLOW_ANONYMOUS" not in api["environment"]


def test_a_worker_gets_longer_to_stop_than_it_drains() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["worker"]
    pod = yaml.safe_load((DEPLOY / "kubernetes/base/worker.yaml").read_text(encoding="utf-8"))["spec"]["template"]
    drain_seconds = WorkerSettings().drain_seconds
    assert float(compose["stop_grace_period"].removesuffix("s")) > drain_seconds
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain_seconds


def test_the_hubs_token_is_a_file_that_only_the_worker_has_and_its_cache_a_volume_that_only_it_writes() -> None:
    services = yaml.safe_load((DEPLOY / "compose.hub.yml").read_text(encoding="utf-8"))["services"]
    base = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    home = base["x-environment"]["HF_HOME"]
    assert services["worker"]["environment"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"
    assert [name for name, service in services.items() if "secrets" in service] == ["worker"]
    assert services["worker"]["volumes"] == [f"hub:{home}"]
    assert services["api"]["volumes"] == [f"hub:{home}:ro"]
    assert (base["services"]["worker"]["environment"]["HF_HUB_OFFLINE"], base["x-environment"]["HF_ENDPOINT"]) == (
        "1",
        None,
    )

    pods = {
        name: yaml.safe_load((DEPLOY / f"kubernetes/hub/{name}.patch.yaml").read_text(encoding="utf-8"))["spec"][
            "template"
        ]["spec"]
        for name in ("api", "worker")
    }
    mounts = {
        (name, mount["name"]): (mount["mountPath"], mount.get("readOnly", False))
        for name, pod in pods.items()
        for mount in pod["containers"][0]["volumeMounts"]
    }
    assert mounts == {
        ("api", "hub"): (home, True),
        ("worker", "hub"): (home, False),
        ("worker", "hub-token"): ("/run/hub", True),
    }
    assert pods["worker"]["containers"][0]["env"] == [{"name": "HF_TOKEN_PATH", "value": "/run/hub/token"}]
    (secret,) = [volume["secret"] for volume in pods["worker"]["volumes"] if "secret" in volume]
    assert (secret["secretName"], secret["optional"]) == ("darkroom-hub", True)
    component = yaml.safe_load((DEPLOY / "kubernetes/hub/kustomization.yaml").read_text(encoding="utf-8"))
    (settings,) = component["configMapGenerator"]
    assert [literal.partition("=")[0] for literal in settings["literals"]] == [
        "HF_HOME",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
    ]
    assert f"HF_HOME={home}" in settings["literals"]
