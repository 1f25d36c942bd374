"""Texts inside image files, in which programs write how an image was made. Decodes no pixel.

files.py      the texts of a file of any kind that has some
png.py        those of PNG files
containers.py the EXIF and XMP blocks of JPEG and WebP files
exif.py       texts in EXIF
xmp.py        texts in XMP
"""
