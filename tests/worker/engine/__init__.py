"""Tests of `worker.engine`."""
