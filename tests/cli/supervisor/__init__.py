"""Tests of `cli.supervisor`."""
