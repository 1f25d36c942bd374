"""The images that requests bring.

reader.py             reads all images of a request, and stores them
image.py              what is known of one of them, where it is stored, and what several may take
training_archive.py   a zip file of images and captions
training_metadata.py  its `metadata.jsonl`
finder.py             finds the image that a text names; `base64_text.py` decodes one that the text holds
fetcher.py            fetches images by URL
decoder.py            has untrusted images decoded: limits, waiting, errors
lane.py               decoder processes of one kind; owners take turns
process.py            the API's end of a decoder process; `decoder_process.py` is the other end, a program
codec/                what that program does with one image
texts/                texts inside image files, which say how they were made
"""
