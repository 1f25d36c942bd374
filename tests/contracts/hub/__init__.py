"""Tests of `contracts.hub`."""
