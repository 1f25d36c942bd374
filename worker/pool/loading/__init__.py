"""From files to a model in the cache.

fetcher.py            files before they are loaded: fetched, hashed, in the page cache, measured
loader.py             loads models and ControlNets into the cache; failures are counted
checkpoint.py         a checkpoint's pipeline as a plan wants it, and its weights as receipts name them
loaded_components.py  components of a checkpoint whose files did not tell them
controlnets.py        ControlNets beside one model
vaes.py               VAEs of the catalogue beside one model
"""
