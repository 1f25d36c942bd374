"""Tests of `contracts.safety`."""
