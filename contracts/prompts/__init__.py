"""Prompts as text and tokens. Knows no requests and no models.

syntax.py         weights, BREAK and LoRAs in AUTOMATIC1111's syntax
tokens.py         how a prompt's tokens are divided among windows, and how many each encoder reads
trigger_words.py  words that stand for the vectors of a textual inversion
"""
