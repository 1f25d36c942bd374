"""The images that requests bring.

reader.py    finds the images that a request names, and stores them
fetcher.py   fetches images by URL
decoder.py   decodes untrusted images into one normal form
"""
