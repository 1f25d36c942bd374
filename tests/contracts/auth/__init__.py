"""Tests of `contracts.auth`."""
