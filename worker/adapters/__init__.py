"""LoRAs, IP-Adapters and textual inversions: found on disk, read, and active only for jobs that name them.

files.py      LoRA files on this machine: the catalogue's, and uploads fetched from the storage and evicted
layouts.py    a LoRA file's tensors under the names of the model's layers
reader.py     a LoRA file -> the weights of each layer, checked against the model
cache.py      LoRAs loaded beside one model; evicts the least recently used
row_hooks.py  forward hooks that make a LoRA act on its own jobs' rows of each layer
lora_slots.py  slots by which LoRAs act on compiled blocks
inversions.py  the textual inversions of a job, read and compared with the text encoders
perturbations.py  layers that are disturbed for some rows of a call
layer_weight.py  shape, dtype and values of a layer's weight, packed or not
low_rank.py   the arithmetic of one layer: LoRA and PEFT's DoRA
weight_differences.py  the arithmetic of one layer: LoHa, LoKr, full differences, OFT, IA3
hypernetworks.py  the arithmetic of one layer's input: hypernetworks
dora.py       the arithmetic of one layer: kohya's DoRA, beside any of these
lycoris_reader.py      a file's tensors of these kinds -> what is changed in each layer
references/   IP-Adapters: reference images that act on their own jobs' rows
"""
