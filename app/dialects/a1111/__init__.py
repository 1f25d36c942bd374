"""AUTOMATIC1111's web UI API, `/sdapi/v1/*` and `/controlnet/*`, as its clients speak it.

schema.py      the fields of its requests, and which of their values ask for nothing
controlnet.py  units of its ControlNet extension
preprocessors.py  its preprocessors, and their sliders as options of ours
union_types.py  kinds of control of unions, by the extension's names
hires.py       its second pass in high resolution, as ours
samplers.py    its samplers and schedule types, and our schedulers
options.py     its options: which may be set, and which only have one value here
requests.py    its requests, translated into ours
sent_names.py  the names by which its clients sent our fields
responses.py   images, progress and errors as its clients read them
lists.py       what its lists say of this service
png_info.py    the parameters inside an image
infotext.py    the text in which they are written
neutral.py     types of fields that this service lacks
"""
