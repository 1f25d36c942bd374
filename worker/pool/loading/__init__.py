"""From files to a model in the cache.

fetcher.py            files before they are loaded: fetched, hashed, in the page cache, measured
loader.py             loads models and ControlNets into the cache; failures are counted
loaded_components.py  components of a checkpoint whose files did not tell them
controlnets.py        ControlNets beside one model
vaes.py               VAEs of the catalogue beside one model
"""
