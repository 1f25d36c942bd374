"""The images that requests bring.

reader.py     finds the images that a request names, and stores them
fetcher.py    fetches images by URL
decoder.py    decodes untrusted images: limits, waiting, errors
lane.py       decoder processes of one kind; owners take turns
process.py    the API's end of a decoder process; `decoder_process.py` is the other end, a program
codec.py      decodes one image and puts it into the form in which it is stored
containers.py removes metadata from PNG, JPEG and WebP files
"""
