"""`python -m dispatcher`: runs one dispatcher."""

import sys

from dispatcher.main import main

if __name__ == "__main__":
    sys.exit(main())
