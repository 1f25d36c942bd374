"""The parts that have files of their own: Prometheus over the figures, and a bucket in the volume's place."""

from __future__ import annotations

import json

import httpx

from tests.containers.stack import ROOT, Stack, compose, run
from tests.support.running_service import Json

_PROMETHEUS = "http://127.0.0.1:9090/api/v1"
_KEYS = {"AWS_ACCESS_KEY_ID": "darkroom-trial", "AWS_SECRET_ACCESS_KEY": "darkroom-trial-secret"}
_BUCKET = {
    **_KEYS,
    "DARKROOM_STORAGE_URL": "s3://darkroom",
    "AWS_ENDPOINT_URL": "http://minio:9000",
    "AWS_REGION": "us-east-1",
}


def ask(path: str, **query: str) -> Json:
    """An answer of Prometheus."""
    answer = (
        httpx.get(f"{_PROMETHEUS}/{path}", params=query, trust_env=False, timeout=10).raise_for_status().json()
    )
    assert answer["status"] == "success"
    found: Json = answer["data"]
    return found


def scraped(expression: str) -> bool:
    """Whether Prometheus answers, and has samples of something."""
    try:
        return bool(ask("query", query=expression)["result"])
    except httpx.HTTPError:
        return False


def test_prometheus_scrapes_the_service_and_evaluates_rules_and_dashboard(stack: Stack) -> None:
    stack.run("txt2img")
    words = ("up", "--detach", "--no-build", "--no-deps", "prometheus")
    compose(*words, extras=("monitoring",), settings={"GRAFANA_PASSWORD": "trial"})
    stack.wait_until(lambda: scraped("darkroom_jobs_ended_total"), "figures in Prometheus")
    assert [target["health"] for target in ask("targets")["activeTargets"]] == ["up"]
    workers = ask("query", query='sum(darkroom_workers{state=~"idle|busy"})')["result"]
    assert [sample["value"][1] for sample in workers] == ["2"]
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 8
    assert {rule["state"] for rule in rules} == {"inactive"}
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/darkroom.json").read_text(encoding="utf-8"))
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        ask("query", query=target["expr"])


def test_images_lie_in_a_bucket_where_one_is_named(stack: Stack) -> None:
    stack.up(2, "s3", settings=_BUCKET)
    stack.wait_until(lambda: all(row["state"] == "idle" for row in stack.live_workers()), "idle workers")
    job = stack.run("txt2img")
    assert stack.image_of(job).size == (64, 64)
    store = compose("ps", "--quiet", "minio", extras=("s3",), settings=_BUCKET).strip()
    kept = run("docker", "exec", store, "find", "/data/darkroom", "-type", "f").split()
    assert any(job["id"] in name for name in kept), kept
