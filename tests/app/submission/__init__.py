"""Tests of `app.submission`."""
