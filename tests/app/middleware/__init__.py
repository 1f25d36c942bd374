"""Tests of `app.middleware`."""
