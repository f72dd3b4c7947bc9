"""The mathematics of frequencies: graphs over users and items, filters on them, and energy by frequency.

- `adjacency`: the user–item and the co-occurrence graphs, normalised;
- `filters`, `propagation`: polynomials of a graph times features, differentiable;
- `spectrum`, `bands`: groups of frequencies, exact on small graphs and by Chebyshev windows on large ones;
- `analysis`: what students kept of their teacher in each group.
"""

from __future__ import annotations

from distill.graph.adjacency import Graph, build_graph, laplacian
from distill.graph.analysis import Analysis, View, analyze_data, read_analysis
from distill.graph.bands import ChebyshevBands
from distill.graph.filters import GraphFilter, linear_coefficients, quadratic_coefficients
from distill.graph.propagation import LowPass, Propagation
from distill.graph.spectrum import ExactGroups, Spectrum, exact_spectrum, knowledge_energies, knowledge_losses

__all__ = [
    "Analysis",
    "ChebyshevBands",
    "ExactGroups",
    "Graph",
    "GraphFilter",
    "LowPass",
    "Propagation",
    "Spectrum",
    "View",
    "analyze_data",
    "build_graph",
    "exact_spectrum",
    "knowledge_energies",
    "knowledge_losses",
    "laplacian",
    "linear_coefficients",
    "quadratic_coefficients",
    "read_analysis",
]
