"""How what `diagnose` measures of a text goes with the text's length."""

import math

import numpy as np
from numpy.typing import NDArray

from ...results.texts import LengthTrend

FEWEST = 3
"""Texts; of two any two numbers correlate perfectly."""


def length_trend(quantity: str, values: NDArray[np.float64], tokens: NDArray[np.float64]) -> LengthTrend:
    """Rank correlation of a number with the number of tokens, and its slope for twice the tokens.

    Args:
      quantity: its name.
      values: one per text, [n]; NaN is no value.
      tokens: how many tokens each text has, [n].

    >>> trend = length_trend("similarity", np.array([0.1, 0.2, 0.3]), np.array([4.0, 8.0, 16.0]))
    >>> round(trend.spearman, 4), round(trend.per_doubling, 4), trend.longest
    (1.0, 0.1, 16)
    """
    known = np.isfinite(values)
    values, tokens = values[known], tokens[known]
    shortest, longest = (int(end(tokens)) if len(tokens) else 0 for end in (np.min, np.max))
    spearman = p_value = per_doubling = math.nan
    if len(values) >= FEWEST and shortest < longest and values.min() < values.max():
        # Imported late: it takes longer to import than all else that a short run does on the host.
        import scipy.stats

        found = scipy.stats.spearmanr(tokens, values)
        spearman, p_value = float(found.statistic), float(found.pvalue)
        doublings = np.log2(tokens) - np.log2(tokens).mean()
        per_doubling = float(doublings @ values / (doublings @ doublings))
    return LengthTrend(quantity, len(values), shortest, longest, spearman, p_value, per_doubling)
