"""Every figure, drawn once: the commands encode it as PNG, the page as inline SVG.

What comes from outside (names of runs and candidates) is written into a PNG only: `named=False` leaves it to the page,
whose template escapes it.
"""

from distill.report.figures.frequencies import draw_figures, draw_frequencies
from distill.report.figures.frontier import draw_frontier
from distill.report.figures.learning import draw_learning, plot_curves
from distill.report.figures.popularity import draw_popularity
from distill.report.figures.style import encode_png, encode_svg
from distill.report.figures.sweep import draw_sweep

__all__ = [
    "draw_figures",
    "draw_frequencies",
    "draw_frontier",
    "draw_learning",
    "draw_popularity",
    "draw_sweep",
    "encode_png",
    "encode_svg",
    "plot_curves",
]
