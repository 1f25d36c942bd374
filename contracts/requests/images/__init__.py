"""A request's input images: their fields, their size, and what is made of them before a job.

image_fields.py        types of the fields about input images
fit.py                 how an image fills an output of another aspect
input_use.py           what was done to an input image, for the receipt
stored_image.py        what is known of an image that is stored, and what a job does to it
output_size.py         the size of a job's images
preprocessing.py       what makes a control image: its options, checked and filled in
preprocess_request.py  the request of a control image that is only shown
"""
