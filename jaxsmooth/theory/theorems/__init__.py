"""The theorems that `verify` certifies and `diagnose` measures: one text each, for every calculus, in one registry."""

# In the order of verify's rows.
from . import heads, blocks, rates, layer_norms, hypotheses  # isort: skip
from .registry import HYPOTHESES, RUNGS, THEOREMS, Rate, Theorem, own_theorem

__all__ = ["HYPOTHESES", "RUNGS", "THEOREMS", "Rate", "Theorem", "own_theorem"]
__all__ += ["blocks", "heads", "hypotheses", "layer_norms", "rates"]
