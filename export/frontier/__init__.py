"""The frontier: every compressed model one could serve, measured side by side, and the one to take for a budget.

plan ─► training ─► sources ─► measuring ─► comparison ─► recommendation ─► document, report, figure
                                                              publishing: the chosen one as a bundle
"""
