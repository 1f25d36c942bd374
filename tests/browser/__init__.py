"""The page at `/` in a real Chromium, against one running service; run by `make browser`, since it needs Chromium.

`DARKROOM_SCREENSHOTS=FOLDER` writes the screenshots of docs/page.md there.
"""
