"""Weights of fewer bits than they are computed with.

torchao_weights.py       denoisers that torchao quantizes while they are loaded
bitsandbytes_weights.py  those that bitsandbytes does, or has before
packed_weights.py        weights that stay packed: their bytes for the planner, and their values
gguf_files.py            GGUF files: packed weights as diffusers' quantizer takes them
scaled.py                weights in 8 bits with scales beside them
"""
