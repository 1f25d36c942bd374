"""Weights on disk: found, read and known by content.

loader.py  folders, single files and hub ids into pipelines; never a pickle
controlnets.py      ControlNets, in folders and in one file
t2i_adapters.py     T2I-Adapters, and whether they fit a model
components.py       a folder's models, each of the right class and with all its weights
original_layout.py  one file in an original layout, with an account of its tensors
torchao_weights.py  denoisers that torchao quantizes while they are loaded
packed_weights.py   weights that stay packed: their bytes for the planner, and their values
gguf_files.py       GGUF files: packed weights as diffusers' quantizer takes them
noise_tables.py      the noise schedule that one file stores, against its scheduler's
rehearsal.py         whether a model can be loaded, by descriptions and headers
one_file.py          a component of a file alone, with an account of its tensors
vaes.py              VAEs that take the place of a model's own
tracking.py         which tensors of a file end up in a model
networks.py         networks that run by themselves, through spandrel
scaled.py           weights in 8 bits with scales beside them
sources.py  where a row's weights are on this machine, and how they get there from a hub
single_file.py  what a whole checkpoint in one file holds, by its keys
places.py  where the files of each model, ControlNet and LoRA are: found, or fetched once, and remembered
files.py   content hashes of weight files, and their place in the system's page cache
"""
