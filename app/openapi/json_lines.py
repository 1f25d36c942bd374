"""Documentation of a form with a file of requests, which its route reads itself."""

from __future__ import annotations

from app.openapi.bodies import Document


def json_lines_body() -> Document:
    """`openapi_extra` of a route that takes a file of requests in a form."""
    seconds = {
        "type": "integer",
        "minimum": 3600,
        "maximum": 2_592_000,
        "description": "Seconds until the file is deleted. Default: as for uploaded images.",
    }
    anchor = {"type": "string", "enum": ["created_at"], "description": "Always `created_at`. Default: that."}
    purpose = {"type": "string", "enum": ["batch"], "description": "What the file is for: always `batch`."}
    form = {
        "type": "object",
        "required": ["file", "purpose"],
        "description": "A form with one file.",
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "Requests as JSON Lines.",
            },
            "purpose": purpose,
            "expires_after[anchor]": anchor,
            "expires_after[seconds]": seconds,
        },
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}
