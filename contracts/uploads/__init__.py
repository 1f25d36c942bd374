"""What clients upload, and how long files are kept.

adapters.py    uploaded LoRAs, textual inversions, IP-Adapters and ControlNets
images.py      uploaded images
owner_bytes.py how many bytes each owner's files take
retention.py   which files are in use, and the sweep of the others
orphans.py     files that no record names
"""
