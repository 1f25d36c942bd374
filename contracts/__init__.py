"""What the HTTP side and the GPU side agree on. Knows pydantic, redis and rq; neither fastapi nor torch."""
