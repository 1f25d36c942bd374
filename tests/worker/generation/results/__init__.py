"""Tests of `worker.generation.results`."""
