"""Who may do what.

api_keys.py         API keys: owners, scopes, limits
caller_options.py   what an API key has set for its own later calls
key_requirement.py  whether there have ever been keys, also after a loss of Redis' data
signed_links.py     links to images that need no key
"""
