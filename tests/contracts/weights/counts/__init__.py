"""Tests of `contracts.weights.counts`."""
