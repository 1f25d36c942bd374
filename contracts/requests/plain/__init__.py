"""Tasks without a diffusion model: their requests and parameters.

images.py     what upscaled images and their like have in common
requests.py   the requests of these tasks
upscaling.py  the request of an upscaled image, and its parameters
erasing.py    the request of an image from which something is erased, and its parameters
preprocessing.py  the request of a control image that a model makes, and its parameters
"""
