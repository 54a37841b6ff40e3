"""The theorems that `verify` certifies and `diagnose` measures: one text each, for every calculus, in one registry."""

# In the order of verify's rows.
from . import heads, blocks, rates, layer_norms  # isort: skip
from .registry import RUNGS, THEOREMS, Rate, Theorem

__all__ = ["RUNGS", "THEOREMS", "Rate", "Theorem", "blocks", "heads", "layer_norms", "rates"]
