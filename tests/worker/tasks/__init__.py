"""Tests of what runs beside the pool's models."""
