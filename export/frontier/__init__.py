"""The frontier: every compressed model one could serve, measured side by side, and the one to take for a budget.

plan ─► training ─► candidates ─► measuring ─► choice ─► document; publishing: a candidate as a bundle. `job` does all.
"""
