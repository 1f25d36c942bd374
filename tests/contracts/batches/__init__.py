"""Tests of `contracts/batches`."""
