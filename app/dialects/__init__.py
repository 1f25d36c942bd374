"""APIs of other services, each translated at the edge; nothing behind them knows which API a job came from.

native_fields.py      our own fields inside another API's request
field_names.py        errors about our fields, under the names that were sent
openai_schema.py      the fields of OpenAI Images requests
openai_forms.py       bodies of their calls, JSON or forms
openai_requests.py    the requests, translated into ours
openai_responses.py   answers, events and errors as OpenAI clients read them
openai_submission.py  their requests, submitted as jobs
openai_batches/       files of them, run in the course of a day
huggingface_requests.py  requests of Hugging Face's inference clients
huggingface_errors.py    errors as they read them
replicate_schema.py      bodies of Replicate's API
replicate_requests.py    predictions, translated into our requests
replicate_models.py      models of the catalogue, with versions and input schemas
replicate_events.py      events of a prediction
a1111/                AUTOMATIC1111's web UI
"""
