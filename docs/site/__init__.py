"""The documentation as a site: the pages of `docs/`, and reference pages made from the code.

`python -m docs.site` writes it into `build/site`; it needs no network. Nothing in the product imports this.

__main__.py      collects the pages in `build/docs`, and builds the site from them
api.py           reference: request fields, answers, routes, errors, from the OpenAPI document
operation.py     reference: settings, catalogue keys, metrics, events, from their tables
command_line.py  reference: the `darkroom` command, from its parser
drawing.py       a drawing of the rooms of the tree, from its imports
markdown.py      tables and docstrings as Markdown
recorder.py      records walks: runs their commands on a terminal, and writes pages of what they printed
walks/           the walks, as `recorder.py` reads them
zensical.toml    order of the pages, theme, and rules
"""
