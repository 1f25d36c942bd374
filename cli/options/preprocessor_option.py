"""How commands write a preprocessor and its options: `canny:low_threshold=50,high_threshold=90`.

Knows none of the names: the service checks them.
"""

from __future__ import annotations

from cli.client import Json, ServiceError

METAVAR = "NAME[:OPTION=NUMBER,…]"


def read_preprocessor(text: str) -> Json:
    """Return the fields of a request that name a preprocessor.

    Raises:
        ServiceError: the text has another form.
    """
    name, _, written = text.partition(":")
    options = {}
    for pair in filter(None, written.split(",")):
        option, _, value = pair.partition("=")
        try:
            options[option.strip()] = float(value)
        except ValueError:
            raise ServiceError(f"preprocessor {text}: expected {METAVAR}, got {pair!r}") from None
    return {"preprocess": name, **({"preprocess_options": options} if options else {})}
