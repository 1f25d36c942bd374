"""Tests of `worker.families`."""
