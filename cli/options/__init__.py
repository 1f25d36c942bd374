"""Options that several commands have.

service.py              the service and the API key; subcommands that call it
request_options.py      the fields of a request, from the schema
preprocessor_option.py  how commands write a preprocessor and its options
quantization.py         weights that are quantized otherwise than a model's row says
"""
