"""What many write first, to hold the service against: two FastAPI routes that only enqueue with RQ, and look."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from redis import Redis
from rq import Queue
from rq.job import Job


def create_app() -> FastAPI:
    """The application; Redis is where DARKROOM_REDIS_URL says."""
    connection = Redis.from_url(os.environ["DARKROOM_REDIS_URL"])
    queue = Queue("bare", connection=connection)
    app = FastAPI()

    @app.post("/v1/txt2img", status_code=202)
    def submit(body: dict[str, Any]) -> dict[str, str]:
        return {"id": queue.enqueue("nobody.runs_this", body).id}

    @app.get("/v1/jobs/{id}")
    def show(id: str) -> dict[str, str]:
        job = Job.fetch(id, connection=connection)
        return {"id": id, "status": str(job.get_status())}

    return app
