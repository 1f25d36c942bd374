"""Imported last by the server that programs are forked from: what each of them would do with all modules again.

FastAPI analyses the routes at the first call that they are compared with, and a program's start collects garbage
among all objects, which copies their memory.
"""

from __future__ import annotations

import gc

from app.main import create_app
from app.settings import ApiSettings

for _route in create_app(ApiSettings()).router.routes:
    _route.matches({"type": "http", "method": "GET", "path": "/nothing", "root_path": "", "headers": []})
gc.collect()
gc.freeze()
