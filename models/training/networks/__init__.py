"""The networks and tokenizers of each family, and how they become a diffusers folder. Trains nothing.

architectures.py  every network at its small size
attention.py      attention without fused kernels, which trains faster at this size
export.py         puts a family's parts together and writes them
tokenizer.py      tokenizers of the captions' words
"""
