"""What a real worker tells of its memory, and the plans that are made of it elsewhere."""

from __future__ import annotations

from tests.support.running_service import RunningService

MIB = 2**20


def test_a_workers_report_is_enough_to_plan_by(service: RunningService) -> None:
    (worker,) = service.http.get("/v1/workers").json()["data"]
    capacity = worker["capacity"]
    assert worker["budget_bytes"] == capacity["budget_bytes"] > 256 * MIB
    for family in ("sdxl", "sd3", "flux"):
        model = capacity["models"][f"shapes-{family}"]
        assert model["value_bytes"] == 4  # float32, on the CPU
        assert 10 * MIB < sum(part["bytes"] for part in model["components"]) < 40 * MIB
        assert capacity["extras"][f"controlnet:shapes-{family}-silhouette"]["bytes"] > 0


def test_a_dry_run_names_the_worker_and_where_everything_would_live(service: RunningService) -> None:
    body = {"task": "txt2img", "model": "shapes-sdxl", "prompt": "a red circle", "num_inference_steps": 3}
    tried = service.http.post("/v1/plan", json=body).json()
    assert tried["runs"] is True
    assert tried["worker"] == service.http.get("/v1/workers").json()["data"][0]["id"]
    job = service.run("txt2img", model="shapes-sdxl", num_inference_steps=3)
    planned = {part["name"] for part in tried["plan"]["components"] if part["placement"] == "device"}
    assert planned == set(job["receipt"]["placement"])
