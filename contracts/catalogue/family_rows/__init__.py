"""Rows of the families that `contracts/catalogue/families.py` puts together.

sdxl.py             Stable Diffusion XL and its refiner
t5.py               families whose prompts T5 reads
language_models.py  families whose prompts a language model reads
qwen.py             Qwen-Image, its edits and its layers
flux2.py            FLUX.2
pixels.py           families that work on pixels
classes.py          families that are prompted by a class
mode_fields.py      sets of request fields for the rows
"""
