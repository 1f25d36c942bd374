"""Checkpoints in one file, and components in one: each tensor is accounted for.

original_layout.py  one file in an original layout, with an account of its tensors
noise_tables.py     the noise schedule that one file stores, against its scheduler's
component.py        a component of a file alone, with an account of its tensors
single_file.py      what a whole checkpoint in one file holds, by its keys
"""
