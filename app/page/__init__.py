"""Darkroom's own page, which browsers get at `/`: a client of the public API, in static files without a build.

files.py   reads the files, and says with which headers they are served
static/    index.html, page.css, and the modules that its main.js describes; `views/` draws them, `vendor/` has
           lit-html, unchanged, with its license
"""
