"""Tests of `contracts.storage`."""
