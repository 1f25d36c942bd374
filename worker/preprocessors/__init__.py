"""Models that make control images of ordinary ones: rows `[[preprocessors]]`, of transformers' classes.

maps.py         one control image: prepared, planned, its model loaded, made
loading.py      a model and what prepares images for it
depth.py        depths
segmentation.py classes of ADE20K, and their colors
pose.py         joints of a person
openpose.py     a person's limbs and joints, drawn
"""
