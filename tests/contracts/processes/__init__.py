"""Tests of `contracts.processes`."""
