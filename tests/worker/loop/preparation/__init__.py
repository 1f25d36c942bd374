"""Tests of `worker.loop.preparation`."""
