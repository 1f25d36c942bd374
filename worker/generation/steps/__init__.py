"""Observers of a job's steps inside its pipeline.

listener.py  listens to the pipeline: stage timer, steps, non-finite latents
hashes.py    hashes of the latents after each step
checked.py   makes one step again from latents that were kept
"""
