"""Tests of `contracts.views`."""
