"""Tests of `worker.training.trainees`."""
