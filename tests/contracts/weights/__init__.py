"""Tests of `contracts.weights`."""
