"""Tests of `app.page`."""
