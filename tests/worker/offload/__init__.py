"""Tests of `worker.offload`."""
