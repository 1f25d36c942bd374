"""Replicate's API, as its clients speak it.

schema.py    its bodies
requests.py  predictions, translated into our requests
models.py    models of the catalogue, with versions and input schemas
events.py    events of a prediction
"""
