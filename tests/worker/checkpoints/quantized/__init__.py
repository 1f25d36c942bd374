"""Tests of `worker.checkpoints.quantized`."""
