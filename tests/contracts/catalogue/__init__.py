"""Tests of `contracts.catalogue`."""
