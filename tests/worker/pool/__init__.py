"""Tests of `worker.pool`."""
