"""Tests of `app.inputs.codec`."""
