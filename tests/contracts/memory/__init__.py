"""Tests of `contracts.memory`."""
