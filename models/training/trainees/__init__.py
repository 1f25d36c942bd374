"""What learns in the worker's training loop, beside what the worker itself trains.

image_prompts.py  an IP-Adapter of a UNet
tokens.py         FLUX.1 Redux
differences.py    LoKr
networks.py       a hypernetwork
controls.py       a T2I-Adapter
prompts.py        examples without a prompt
"""
