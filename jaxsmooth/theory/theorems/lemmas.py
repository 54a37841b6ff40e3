"""Lemma 1 of Shi et al. (2022) in any calculus: what the registered theorems and the functions of `block.lemmas` share.

They take what the map made of H, and numbers that their callers have computed already. Proofs are in docs/theory.md,
that of `renormed` in docs/speed.md.
"""

from ..statement import Statement
from .calculus import ArrayLike, Calculus, M, N


def stretched(c: Calculus[M, N], after: M, factor: N, distance: N) -> Statement[N]:
    """Lemma 1(1), (2), (4): d_M(`after`) <= `factor` d_M(H), for W, an activation or A with rows of one sum."""
    return Statement(c.distance(after), factor * distance)


def linear(c: Calculus[M, N], hidden: M, weight: M, norm: N) -> Statement[N]:
    """Lemma 1(1): d_M(H W) <= ||W|| d_M(H)."""
    return stretched(c, c.matmul(hidden, weight), norm, c.distance(hidden))


def summed(c: Calculus[M, N], total: M, one: N, other: N) -> Statement[N]:
    """Lemma 1(3): the distance of a sum is at most the sum of the distances of its two terms."""
    return Statement(c.distance(total), one + other)


def mixed(c: Calculus[M, N], after: M, rate: N, distance: N, defect: N, mean_size: N) -> Statement[N]:
    """Lemma 1(4) for any A: d_M(A H) <= ||J A|| d_M(H) + ||J A 1|| ||h||, h the mean token."""
    return Statement(c.distance(after), rate * distance + defect * mean_size)


def renormed(c: Calculus[M, N], hidden: M, update: M, scale: ArrayLike, eps: float) -> Statement[N]:
    """||LN(X + M) - LN(X)||_F <= G (||S^-1 M C||_F ||T^-1 M C||_F)^(1/2), S and T the stds of X and X + M.

    Token by token the LayerNorm identity says |C m_i|^2 / (s_i t_i), whose sum Cauchy and Schwarz split.
    """
    gains, back, ones, none = (c.weight(row[None]) for row in (scale, -scale, 0 * scale + 1, 0 * scale))
    moved, stds = c.add(hidden, update), c.stds(hidden, eps)
    later = c.stds(moved, eps)
    apart = c.frobenius(c.add(c.layer_norm(moved, gains, none, later), c.layer_norm(hidden, back, none, stds)))
    one, other = (c.frobenius(c.layer_norm(update, ones, none, own)) for own in (stds, later))
    return Statement(apart, c.gain(scale) * c.sqrt(one * other))
