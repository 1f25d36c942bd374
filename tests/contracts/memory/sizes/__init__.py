"""Tests of `contracts.memory.sizes`."""
