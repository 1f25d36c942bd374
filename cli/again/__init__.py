"""Makes an image again as its receipt says, and compares: whether a receipt is true.

run.py          makes the image again at a service
input_files.py  matches files with the input images that a receipt names by their hashes
kept_step.py    makes one step again from latents that were kept
comparison.py   what differs, and whether rounding explains it
"""
