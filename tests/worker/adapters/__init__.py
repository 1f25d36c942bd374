"""Tests of `worker.adapters`."""
