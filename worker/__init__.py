"""The GPU side: takes batches from the queue and runs them on warm models. Knows torch, never fastapi."""
