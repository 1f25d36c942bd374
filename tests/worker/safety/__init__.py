"""Tests of `worker.safety`."""
