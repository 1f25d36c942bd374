"""Tests of `worker.generation`."""
