"""Tests of `app.dialects.openai`."""
