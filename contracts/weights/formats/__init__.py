"""File formats of weights: headers within bounds, before anything else is read.

header_text.py  the text of a safetensors header, bounded while it is read
safetensors.py  names, dtypes, shapes and offsets of a file's tensors
gguf.py         the same of a GGUF file, whose weights may be packed
json_text.py    JSON in the metadata of files, bounded before it is parsed
finite.py       refuses files with NaN or infinite values
"""
