"""Theorems on one LayerNorm: the chain of bounds, from the data's own to the paper's."""

from ..statement import Statement
from .calculus import M, N
from .quantities import NormQuantities
from .registry import OURS, SHI, theorem


@theorem("layer_norm_pairs", OURS, needs="norm")
def pairs(q: NormQuantities[M, N]) -> Statement[N]:
    """d_M(LN H) <= G [(1/n) sum_{i<j} |C h_i - C h_j|^2 / (std_i std_j)]^(1/2)."""
    return q.c.zero_where(q.level, Statement(q.normed, q.gain * q.c.pair_distance(q.centred, q.precision)))


@theorem("layer_norm_weighted", OURS, needs="norm")
def weighted(q: NormQuantities[M, N]) -> Statement[N]:
    """d_M(LN H) <= G lambda_max(L_p)^(1/2) d_M(H C), p = 1 / std."""
    return q.c.zero_where(q.level, Statement(q.normed, q.gain * q.c.pair_weight(q.precision) * q.c.distance(q.centred)))


@theorem("layer_norm_two_smallest", OURS, needs="norm")
def two_smallest(q: NormQuantities[M, N]) -> Statement[N]:
    """d_M(LN H) <= G d_M(H C) / (the product of the two smallest stds)^(1/2)."""
    c = q.c
    return q.c.zero_where(q.level, Statement(q.normed, q.gain * c.distance(q.centred) / c.sqrt(c.least(q.stds, 2))))


@theorem("layer_norm_least", f"{SHI}, in the proof of Theorem 2; {OURS}", needs="norm")
def least(q: NormQuantities[M, N]) -> Statement[N]:
    """d_M(LN H) <= G d_M(H) / (the smallest std)."""
    return q.c.zero_where(q.level, Statement(q.normed, q.gain * q.c.distance(q.hidden) / q.c.least(q.stds)))
