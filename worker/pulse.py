"""`python -m worker.pulse`: the former name of `worker.healthcheck`, kept for one release."""

from __future__ import annotations

import sys

from worker.healthcheck import main

if __name__ == "__main__":
    sys.exit(main())
