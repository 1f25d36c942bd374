"""Where images come from, so that others can check it: Content Credentials (C2PA) and signed receipts in files.

roots.py        the certificate and the keys that readers are given, so that they know the signer
identity.py     the key and the certificates that sign, from the settings or made at first use
external_signer.py signs by a command or another package, which has the key
manifest.py     what is signed of an image: how it was made, its receipt, the image that it started from
pixels.py       the hash of an image's pixels
opening.py      opens the signer as the settings say
credentials.py  signs image files
verification.py reads and checks the credentials of a file
image_data.py   the hash of a JPEG's or WebP's image without its metadata
kept_latents.py the latents of each step, where they are kept
receipts/       signed receipts
"""
