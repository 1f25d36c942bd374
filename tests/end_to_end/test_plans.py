"""What a real worker reports about its memory, and the plans that the API makes from it."""

from __future__ import annotations

from tests.support.running_service import RunningService

MIB = 2**20


def test_a_workers_report_is_enough_for_planning(service: RunningService) -> None:
    (worker,) = service.http.get("/v1/workers?detail=plan").json()["data"]
    short = service.http.get("/v1/workers")
    assert len(short.content) < 2048  # people read it
    assert "capacity" not in short.json()["data"][0]
    capacity = worker["capacity"]
    assert worker["budget_bytes"] == capacity["budget_bytes"] > 256 * MIB
    for family in ("sdxl", "sd3", "flux"):
        model = capacity["models"][f"shapes-{family}"]
        assert model["value_bytes"] == 4  # float32, on the CPU
        assert 10 * MIB < sum(part["bytes"] for part in model["components"]) < 40 * MIB
        assert capacity["extras"][f"controlnet:shapes-{family}-silhouette"]["bytes"] > 0


def test_a_dry_run_names_the_worker_and_the_placement_of_every_component(service: RunningService) -> None:
    body = {"task": "txt2img", "model": "shapes-sdxl", "prompt": "a red circle", "num_inference_steps": 3}
    dry_run = service.http.post("/v1/plan", json=body).json()
    assert dry_run["runs"] is True
    assert dry_run["worker"] == service.http.get("/v1/workers").json()["data"][0]["id"]
    job = service.run("txt2img", model="shapes-sdxl", num_inference_steps=3)
    planned = {part["name"] for part in dry_run["plan"]["components"] if part["placement"] == "device"}
    assert planned == set(job["receipt"]["placement"])
