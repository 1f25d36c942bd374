"""The Python client in `clients/`, against answers that a service seldom gives."""
