"""Weights on disk: found, read and known by content.

loader.py        folders, single files and hub ids into pipelines; never a pickle
components.py    a folder's models, each of the right class and with all its weights
rehearsal.py     whether a model can be loaded, by descriptions and headers
text_encoders.py text encoders from files of their own
vaes.py          VAEs that take the place of a model's own
sliced.py        weights in slices, in our own code and in the libraries' loaders
tracking.py      which tensors of a file end up in a model
networks.py      networks that run by themselves, through spandrel
sources.py       where a row's weights are on this machine, and how they get there from a hub
places.py        where the files of each model, ControlNet and LoRA are: found, or fetched once, and remembered
files.py         content hashes of weight files, and their place in the system's page cache
one_file/        whole checkpoints, and single components, in one file
quantized/       weights of fewer bits than they are computed with
controls/        ControlNets, T2I-Adapters and what is stored as a difference
"""
