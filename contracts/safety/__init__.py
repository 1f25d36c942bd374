"""Checks of prompts and images, before anything is queued, stored or shown.

checks.py     what a check is, and how one of another package is found by its name
words.py      the word list
"""
