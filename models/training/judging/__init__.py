"""How good the trained models are.

edits.py    what edits change, and what they keep
figures.py  what is right in images of fixed captions
trials.py   what adapters and ControlNets change
"""
