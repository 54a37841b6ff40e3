"""How what `diagnose` measures of a text goes with the text's length."""

import math

import numpy as np
from numpy.typing import NDArray

from ...results.texts import LengthGroup, LengthTrend
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


def embedding_similarity(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean cosine of every text's embedding with those of the others.

    Args:
      directions: unit vectors, [D n]; a zero vector is no direction.

    Returns:
      [n]; NaN without a direction, and where there is no other.

    >>> embedding_similarity(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    array([0.5, 0.5, 0. ])
    """
    known = np.any(directions != 0, axis=0)
    others = known.sum() - 1
    if others < 1:
        return np.full(directions.shape[1], math.nan)
    together = directions.sum(axis=1) @ directions - (directions * directions).sum(axis=0)
    return np.where(known, together / others, math.nan)


def length_groups(directions: NDArray[np.float64], tokens: NDArray[np.float64]) -> tuple[LengthGroup, ...]:
    """The texts in quarters by their numbers of tokens, and how alike the embeddings of each are.

    Texts of one length are in one group, so groups may differ in size, and there may be fewer than four.

    Args:
      directions: unit vectors, [D n]; texts of a zero vector are left out.
      tokens: how many tokens each text has, [n].

    >>> groups = length_groups(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), np.array([5.0, 5.0, 9.0]))
    >>> [(group.texts, group.longest, group.similarity) for group in groups]
    [(2, 5, 1.0), (1, 9, nan)]
    """
    known = np.any(directions != 0, axis=0)
    directions, tokens = directions[:, known], tokens[known]
    if not len(tokens):
        return ()
    quarter = np.searchsorted(np.quantile(tokens, [0.25, 0.5, 0.75], method="inverted_cdf"), tokens)
    return tuple(_group(directions[:, quarter == k], tokens[quarter == k]) for k in np.unique(quarter))


def _group(directions: NDArray[np.float64], tokens: NDArray[np.float64]) -> LengthGroup:
    similar = embedding_similarity(directions)
    return LengthGroup(len(tokens), int(tokens.min()), int(tokens.max()), float(similar.mean()))
