"""The OpenAPI document.

document.py     completes FastAPI's document with bodies, errors, security and examples
descriptions.py completes what schemas say of their fields
routes.py       what routes say about themselves: groups, answers, errors, streams
bodies.py       the bodies that routes read themselves
page.py         /docs; docs.html and docs.js are its files, and swagger-ui-license.txt the license of the others
examples.json   an example for each schema
"""
