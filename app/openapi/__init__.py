"""The OpenAPI document.

document.py     completes FastAPI's document with bodies, errors, security and examples
descriptions.py completes what schemas say of their fields
routes.py       what routes say about themselves
examples.json   an example for each schema
"""
