"""Tests of `app.openapi`."""
