"""Who may do what.

api_keys.py         API keys: owners, scopes, limits
key_requirement.py  whether there have ever been keys, also after a loss of Redis' data
signed_links.py     links to images that need no key
"""
