"""Tests of `app.parsing`."""
