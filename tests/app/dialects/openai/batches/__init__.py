"""Tests of the translation of OpenAI's batches."""
