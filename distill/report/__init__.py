"""The report: one self-contained HTML page on a set of runs of one data set, and the figures and tables it is made of.

material ─► figures (PNG and SVG), tables (Markdown and HTML) ─► sections ─► page (template.html, style.css)

The commands draw with the same figures and tables. Names of runs and data sets are text in the page, escaped by the
template, and never part of a figure there.
"""
