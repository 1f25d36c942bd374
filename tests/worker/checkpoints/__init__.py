"""Tests of `worker.checkpoints`."""
