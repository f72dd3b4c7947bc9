"""The report: one self-contained HTML page on a set of runs of one data set.

material ─► comparison, curves, recommendations, frequencies, frontier ─► page (template.html, style.css)

Each section is a module that turns what it is given into a `Section`, or says which option would bring it. Names of
runs and data sets are text in the page, escaped by the template, and never part of a figure.
"""
