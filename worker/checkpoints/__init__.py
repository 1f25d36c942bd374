"""Weights on disk: found, read and known by content.

loader.py  folders, single files and hub ids into pipelines; never a pickle
places.py  where the files of each model, ControlNet and LoRA are: found, or fetched once, and remembered
files.py   content hashes of weight files, and their place in the system's page cache
"""
