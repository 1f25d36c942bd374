"""Tests of `contracts.leases`."""
