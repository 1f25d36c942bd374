"""Tests of `worker.runtime`."""
