"""Tests of what operations use, as far as no container engine is needed."""
