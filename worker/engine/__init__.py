"""The step engine: stock pipelines as coroutines, whose denoiser, ControlNet and VAE calls are made together.

policy.py   which suspended calls are served next; pure
accounts.py what each owner has been served
turns.py    which model the device serves, and for how long
costs.py    what a call of so many rows takes, learned while running
"""
