"""The commands of `darkroom`, one file each: its options, and what it does.

up.py            the whole service on this machine
check.py         what `up` would refuse
generate.py      one job, with a progress bar
preprocess.py    a control image of a photo
preprocessor_option.py  how commands write a preprocessor and its options
request_options.py  its options for the fields of a request, from the schema
jobs.py          list, show, cancel, fetch, watch
listing.py       the rows of a listing, as a table or as JSON
admin.py         all owners' jobs, queues, workers, usage and keys
plan.py          the memory plans of a model
sizes.py         sizes of a catalogue's rows for it, wherever their files are
keys.py          API keys
models.py        list, add, remove, fetch
catalogue_file.py  changes the catalogue file for it
rehearsal.py     a model loads and makes an image, in a process of its own, before it is added
hub.py           commits of hub repositories
loras.py         uploaded LoRAs
verify.py        how an image was made, by its signature
webhooks.py      the signing secret
settings.py      all settings, where they come from, what they mean
"""
