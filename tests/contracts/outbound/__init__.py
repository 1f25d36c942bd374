"""Tests of `contracts.outbound`."""
