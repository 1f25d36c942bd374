"""Signed receipts: what a file claims about how it was made, signed with Ed25519, and how that is checked.

keys.py             the key that signs, and its public half
claims.py           what is signed
signatures.py       signs claims, and checks signatures
verification.py     reads and checks the signed receipt of a file
merkle.py           hashes of the latents of each step, and their root
step_comparison.py  whether an image that was made again is the same, and from which step on it is not
"""
