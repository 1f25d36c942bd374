"""Tests of `app.inputs`."""
