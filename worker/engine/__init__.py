"""The step engine: stock pipelines as coroutines, whose calls of the denoiser, ControlNets and VAE are made together.

policy.py   which suspended calls are served next; pure
costs.py    what a call of so many rows takes, learned while running
"""
