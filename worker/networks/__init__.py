"""Networks beside the models, on images: what tasks and the second pass of `hires` have in common. Knows no jobs.

images.py    images as networks take and give them
tiles.py     an image in overlapping tiles, so that a network needs bounded memory
upscaler.py  an upscaler on each tile of an image, and the memory that it takes
"""
