"""Tests of `contracts.uploads`."""
