"""Repositories on the Hugging Face hub, or on a server that speaks its protocol, and the cache of their files.

Speaks HTTP and the layout of the hub's cache itself: huggingface_hub's client resumes no download, has no time-out
for some requests, and is not in the API's image. Importing opens no connection.

environment.py       endpoint, cache, token and time-outs, from HF_HOME and its relatives
source.py            the forms in which a catalogue row names a repository or a file of it
errors.py            what can be tried again and what cannot, each with a sentence for clients
client.py            requests to the hub: commits, listings, files
cache.py             the layout of the cache on disk, shared with huggingface_hub
download.py          one file into the cache: locked, resumed, verified
repository_files.py  the files of a repository at one commit, or of a folder
selection.py         which files of a repository a row needs
folders.py           which files of a folder are loaded
snapshot.py          all of these files: found in the cache, or fetched
access.py            whether a repository can be fetched, asked before anything depends on it
remote.py            what can be told of files before they are fetched
"""
