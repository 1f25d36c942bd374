"""Imported last by the server that programs are forked from: what each of them would do with all modules again.

FastAPI analyses the routes at the first call that they are compared with, and a program's start collects garbage
among all objects, which copies their memory.
"""

from __future__ import annotations

import gc

from app.main import _routes  # not an application, which reads settings and the catalogue

for _route in _routes(with_page=True):
    _route.matches({"type": "http", "method": "GET", "path": "/nothing", "root_path": "", "headers": []})
gc.collect()
gc.freeze()
