"""Documentation: a page a subject in Markdown; `site/` builds them into a site with the reference pages."""
