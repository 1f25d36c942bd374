"""Tests of `worker.encoding`."""
