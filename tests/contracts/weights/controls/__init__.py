"""Tests of `contracts.weights.controls`."""
