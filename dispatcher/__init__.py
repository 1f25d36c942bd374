"""The side that tells others: delivers webhooks. Knows httpx; neither fastapi nor torch, nor `app` or `worker`."""
