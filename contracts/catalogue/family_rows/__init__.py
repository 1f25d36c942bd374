"""The rows of `contracts/catalogue/families.py`, one file a family, named as its id with `_` for `-`.

Each has its row as `FAMILY`; what the entries mean is in `contracts/catalogue/family.py`. No row imports another.
"""
