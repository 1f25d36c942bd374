"""What clients upload, and how long files are kept.

images.py      uploaded images
loras.py       uploaded LoRAs
retention.py   which files are in use, and the sweep of the others
orphans.py     files that no record names
"""
