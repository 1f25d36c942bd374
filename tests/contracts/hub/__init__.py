"""Tests for contracts.hub."""
