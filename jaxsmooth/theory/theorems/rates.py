"""The ladder of rates: how much one post-LN block stretches d_M at most, from Shi et al.'s theorem down.

actual <= L4 <= L3 <= L2b <= L2 <= L1 <= L0. `verify` certifies each; `diagnose` computes each from the same text.
"""

from .calculus import M, N
from .quantities import BlockQuantities
from .registry import OURS, SHI, Rate, rate


@rate("shi2022_rate_L0", f"{SHI}, Theorem 2, with gains and slope", rung="L0")
def shi2022_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L0: (1 + L s^2)(1 + sqrt(lambda) N s) G_1 G_2 / (sigma_1 sigma_2), s and lambda maxima over the whole model."""
    s = q.largest_norm
    stretch = q.one + q.largest_mixing * q.c.number(float(q.heads)) * s
    return Rate(stretch, (q.one + q.slope * s * s,), (q.gain_attn, q.gain_mlp), q.least_stds)


@rate("block_rate_L1", OURS, rung="L1")
def block_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L1: (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h) ||W_h||) G_1 G_2 / (sigma_1 sigma_2)."""
    return Rate(q.one + q.added_by_head, (q.mlp_lipschitz,), (q.gain_attn, q.gain_mlp), q.least_stds)


@rate("refined_rate_L2", OURS, rung="L2")
def refined_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L2: a f G_2 / (the product of the two smallest stds at each LayerNorm)^(1/2)."""
    smallest = q.c.sqrt(q.c.least(q.std_attn, 2) * q.c.least(q.std_mlp, 2))
    return Rate(q.stretch, (), (q.mlp, q.gain_mlp), smallest)


@rate("pairwise_rate_L2b", OURS, rung="L2b")
def pairwise_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L2b: a f G_2 lambda_max(L_P)^(1/2)."""
    return Rate(q.stretch, (), (q.mlp, q.gain_mlp, q.pair_weight))


@rate("operator_rate_L3", OURS, rung="L3")
def operator_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L3: f G_2 ||T||, T(X) = L_P^(1/2) J (X + sum_h A_h X W_h) C."""
    return Rate(q.operator_norm, (q.mlp, q.gain_mlp), defect_weight=q.pair_weight)


@rate("data_rate_L4", OURS, rung="L4")
def data_rate(q: BlockQuantities[M, N]) -> Rate[N]:
    """L4: d_M(H') <= f G_2 [(1/n) sum_{i<j} P_i P_j |C u_i - C u_j|^2]^(1/2)."""
    pairs = q.c.pair_distance(q.c.centre_features(q.pre_attn), q.precision)
    return Rate(pairs, (q.mlp, q.gain_mlp), relative=False)
