"""Tests of `contracts.weights.formats`."""
