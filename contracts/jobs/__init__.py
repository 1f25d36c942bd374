"""A job as it is stored in Redis: its record, its receipt and its events. How jobs move is `queue` and `leases`.

records.py           a job's record: state, progress, images, error
receipt.py           its receipt: how its images were generated
failures.py          why jobs fail, with codes for clients
preparations.py      how the preparation of files goes on that jobs wait for
image_safety.py      what the safety check found of an image
record_reader.py     reads records, whichever release wrote them
events.py            a job's event stream
log_context.py       names jobs in log lines, without their prompts
spans.py             the spans of a job in its trace
"""
