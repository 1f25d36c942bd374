"""Trains the shipped checkpoints on drawn shapes. Knows torch and diffusers, never `app` or `worker`."""
