"""Tests of `worker.loop`."""
