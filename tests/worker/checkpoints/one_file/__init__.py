"""Tests of `worker.checkpoints.one_file`."""
