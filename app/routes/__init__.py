"""The routes, one module a subject; `main.py` puts them together."""
