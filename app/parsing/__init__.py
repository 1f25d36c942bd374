"""Request bodies, from the socket to a request.

bodies.py          reads bodies with limits on size and time, and unpacks forms
encodings.py       unpacks compressed bodies
byte_budget.py     bytes that all requests of a process share
spooled_files.py   spools large files to disk
json_bodies.py     bounds what a JSON body may cost to parse
requests.py        parses JSON into requests and words the errors
partial_requests.py  requests that a refused body could have been
field_names.py     names that other services use for our fields
file_checks.py     checks costly files one at a time
schemas.py         JSON Schema of the requests: allowed values, and schemas for one model
narrow_schemas.py  schemas of trainings on one model, and of requests for one upscaler or eraser
"""
