"""OpenAI's Images API, and its batches, as its clients speak it.

schema.py      the fields of its requests
forms.py       bodies of its calls, JSON or forms
requests.py    its requests, translated into ours
submission.py  its requests, submitted as jobs
responses.py   answers, events and errors as its clients read them
batches/       files of requests, run in the course of a day
"""
