"""Clients of the service, for its users: a small layer written by hand, and types that are generated at a release.

Only that layer is here. What is generated follows from the OpenAPI document, which most changes of the API change:
thousands of lines that would be in every review. `make clients` adds them, and packs both into `build/clients`.

build.py      generates the types and packs the clients
python/       the package `darkroom_client`: httpx, and nothing else
typescript/   the package `darkroom-client`: fetch, and nothing else
"""
