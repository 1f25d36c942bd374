"""Rows of a catalogue on this machine.

catalogue_file.py  adds rows to the file, and removes them
sizes.py           sizes of a catalogue's rows, wherever their files are
rehearsal.py       a model loads and makes an image, in a process of its own, before it is added
"""
