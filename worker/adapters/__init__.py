"""LoRAs: found on disk, read, kept loaded beside a model, and active only on the rows of jobs that name them.

files.py      LoRA files on this machine: the catalogue's, and uploads fetched from the storage and evicted
layouts.py    a LoRA file's tensors under the names of the model's layers
reader.py     a LoRA file -> the weights of each layer, checked against the model
cache.py      LoRAs loaded beside one model; evicts the least recently used
row_hooks.py  forward hooks that make a LoRA act on its own jobs' rows of each layer
low_rank.py   the arithmetic of one layer: LoRA and DoRA
"""
