"""Options that several commands have.

request_options.py      the fields of a request, from the schema
preprocessor_option.py  how commands write a preprocessor and its options
"""
