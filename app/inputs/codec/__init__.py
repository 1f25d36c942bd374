"""Runs in the decoder's processes: decodes an untrusted image, and puts it into the form in which it is stored.

decode.py           decodes an image, or what was drawn as a mask
decoded_image.py    a decoded image as it crosses the pipe; also used at the API's end
limits.py           limits on an image, checked from its header
containers.py       removes metadata from PNG, JPEG and WebP files
color_profiles.py   converts colors to sRGB
masks.py            reads what was drawn as a mask
fill.py             fills what a mask selects with its surroundings
preprocessors.py    makes control images
stored_form.py      upright, in sRGB, 8 bits a channel, as PNG, JPEG or WebP
"""
