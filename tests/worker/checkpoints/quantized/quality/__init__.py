"""Tests of quantizations whose packages `make test` does without."""
