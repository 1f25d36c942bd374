"""The images that requests bring.

reader.py     finds the images that a request names, and stores them
fetcher.py    fetches images by URL
decoder.py    decodes untrusted images: limits, waiting, errors
lane.py       decoder processes of one kind; owners take turns
process.py    the API's end of a decoder process; `decoder_process.py` is the other end, a program
codec.py      decodes one image and puts it into the form in which it is stored
color_profiles.py  converts it to sRGB
gray_levels.py  brings grays of more than 8 bits to 8
masks.py      reads what was drawn as a mask
containers.py removes metadata from PNG, JPEG and WebP files
"""
