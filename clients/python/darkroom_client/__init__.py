"""Python client of Darkroom: submits image jobs, waits for them, and returns their files.

client.py     the calls, and `run`
errors.py     the one exception
events.py     what happens to a job, and how event streams are read
webhooks.py   checks the signatures of webhooks
schema.py     types of requests and answers, generated from the service's OpenAPI document by `make clients`
"""

from darkroom_client.client import Client, Result
from darkroom_client.errors import DarkroomError, FieldError
from darkroom_client.events import Event
from darkroom_client.webhooks import verify_webhook

__version__ = "0.0.0"

__all__ = ["Client", "DarkroomError", "Event", "FieldError", "Result", "verify_webhook"]
