"""Tests of `contracts.queue`."""
