"""The images that requests bring.

reader.py     finds the images that a request names, and stores them; `base64_text.py` decodes those in their text
fetcher.py    fetches images by URL
decoder.py    has untrusted images decoded: limits, waiting, errors
lane.py       decoder processes of one kind; owners take turns
process.py    the API's end of a decoder process; `decoder_process.py` is the other end, a program
codec/        what that program does with one image
"""
