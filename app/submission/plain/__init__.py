"""Tasks that run on no diffusion model: how their requests are checked.

tasks.py          what each of them reads and stores; a new task is a line there
networks.py       what the checks of tasks share that run a network of the catalogue
erasing.py        the checks of an image from which something is erased
preprocessing.py  the checks of a control image that a model makes
upscaling.py      the checks of an upscaled image
"""
