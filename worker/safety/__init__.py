"""The check of images before they are stored or shown, previews included.

stage.py        checks a job's images, blurs or refuses those that are flagged, keeps what they were for operators
opening.py      opens the check that the settings name
classifier.py   a classifier of images, such as CLIP's, from a local folder
checkpoint_checker.py the safety checker that a checkpoint carries
"""
