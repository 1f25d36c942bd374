"""`python -m dispatcher`: runs one dispatcher."""

from dispatcher.main import main

if __name__ == "__main__":
    main()
