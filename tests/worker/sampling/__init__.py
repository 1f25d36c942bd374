"""Tests of `worker.sampling`."""
