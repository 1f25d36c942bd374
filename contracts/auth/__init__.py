"""Who may do what.

api_keys.py       API keys: owners, scopes, limits
signed_links.py   links to images that need no key
"""
