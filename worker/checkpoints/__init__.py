"""Weights on disk: found, read and known by content.

loader.py  folders, single files and hub ids into pipelines; never a pickle
files.py   content hashes of weight files, and their place in the system's page cache
"""
