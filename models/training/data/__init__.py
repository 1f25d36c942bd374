"""What the models learn from: scenes, their captions and drawings. Knows no network.

captions.py  words of the grammar, and scenes drawn at random from it
drawing.py   a scene as an image, its silhouette and its edges
edits.py     pairs of scenes, and the instruction between them
effects.py   what an adapter should change, drawn and measured
gallery.py   images for the autoencoder, and images as tensors
"""
