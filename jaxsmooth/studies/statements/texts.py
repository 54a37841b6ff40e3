"""What `diagnose` says of other texts of the same kind: distribution-free limits of rates, contraction, similarity."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...results.texts import KeptTexts, LengthGroup, LengthTrend, TextStatement, TextStatements
from ...theory.distribution_free import clopper_pearson1934_limits, vovk2005_limit, wilks1941_limit
from .lengths import embedding_similarity, length_groups, length_trend

CONFIDENCE, SHARE = 0.95, 0.95
SIMILAR = 0.8
"""Cosine similarity above which the report calls tokens strongly similar."""
NEEDED = ("subspace_distance", "actual", "cosine_similarity")
"""What is kept of every text, by its name among the measurements."""


def text_statements(
    kept: KeptTexts, *, each_text: bool, embedded: KeptTexts | None = None, own: Sequence[str] = ()
) -> TextStatements:
    """The statements that the kept values support, and with `each_text` the values.

    Args:
      kept: those of `NEEDED`: d_M and cosine similarity of hidden states, [L+1 n], and actual rates, [L n]; and
        "tokens", how many each text has, [1 n].
      each_text: whether the values are wanted too.
      embedded: the directions of their "embedding", [D n], and "tokens" again, of fewer texts where there are many.
      own: names of the user's metrics, which are kept as "own/" and the name; their values are handed on.
    """
    places, found = kept.found()
    distance, rates, cosine = (found[name] for name in NEEDED)
    with np.errstate(divide="ignore", invalid="ignore"):
        # From consensus there is nothing to contract.
        contraction = np.where(distance[:1] > 0, distance[-1:] / distance[:1], np.nan)
    rows = [_statement("contraction", None, contraction[0], 1.0)]
    rows += [_statement("rate", layer + 1, values, 1.0) for layer, values in enumerate(rates)]
    rows += [_statement("cosine_similarity", layer, values, SIMILAR) for layer, values in enumerate(cosine)]
    values = {"contraction": contraction, "rate": rates, "cosine_similarity": cosine, "tokens": found["tokens"]}
    values |= {f"own/{name}": found[f"own/{name}"] for name in own}
    trends = [length_trend(name, values[name][-1], found["tokens"][0]) for name in ("cosine_similarity", "contraction")]
    trend, groups = _embeddings(embedded)
    return TextStatements(
        confidence=CONFIDENCE,
        share=SHARE,
        read=kept.read,
        kept=len(places),
        rows=tuple(rows),
        places=places,
        values=values if each_text else {},
        lengths=(*trends, *trend),
        groups=groups,
    )


def _embeddings(embedded: KeptTexts | None) -> tuple[tuple[LengthTrend, ...], tuple[LengthGroup, ...]]:
    """How the similarity of different texts' embeddings goes with their length."""
    if embedded is None or not embedded.read:
        return (), ()
    found = embedded.found()[1]
    directions, tokens = found["embedding"], found["tokens"][0]
    similar = embedding_similarity(directions)
    return (length_trend("embedding_similarity", similar, tokens),), length_groups(directions, tokens)


def _statement(quantity: str, layer: int | None, values: NDArray[np.float64], level: float) -> TextStatement:
    known = values[~np.isnan(values)]
    exceeding = int(np.sum(known > level))
    share = clopper_pearson1934_limits(exceeding, len(known), CONFIDENCE)
    return TextStatement(
        quantity=quantity,
        layer=layer,
        texts=len(known),
        level=level,
        exceeding=exceeding,
        share_at_most=share.at_most,
        share_at_least=share.at_least,
        most_below=wilks1941_limit(known, SHARE, CONFIDENCE),
        most_above=-wilks1941_limit(-known, SHARE, CONFIDENCE),
        next_below=vovk2005_limit(known, CONFIDENCE),
        next_above=-vovk2005_limit(-known, CONFIDENCE),
    )
