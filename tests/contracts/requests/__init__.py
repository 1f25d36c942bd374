"""Tests of `contracts.requests`."""
