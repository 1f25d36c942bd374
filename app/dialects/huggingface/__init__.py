"""Hugging Face's inference API, as its clients speak it.

requests.py  its requests, translated into ours
errors.py    errors as its clients read them
"""
