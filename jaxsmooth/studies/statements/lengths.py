"""How what `diagnose` measures of a text goes with the text's length."""

import math

import numpy as np
from numpy.typing import NDArray

from ...results.texts import LengthTrend
from ...theory.distribution_free import spearman1904_correlation


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
    correlation, p_value = spearman1904_correlation(tokens, values)
    per_doubling = math.nan
    if not math.isnan(correlation):
        doublings = np.log2(tokens) - np.log2(tokens).mean()
        per_doubling = float(doublings @ values / (doublings @ doublings))
    return LengthTrend(
        quantity=quantity,
        texts=len(values),
        shortest=int(tokens.min()) if len(tokens) else 0,
        longest=int(tokens.max(initial=0)),
        spearman=correlation,
        p_value=p_value,
        per_doubling=per_doubling,
    )
