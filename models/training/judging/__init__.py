"""How good the trained models are.

figures.py  what is right in images of fixed captions
trials.py   what adapters and ControlNets change
"""
