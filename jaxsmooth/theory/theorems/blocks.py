"""Theorems on one block but its rates: the lemmas on the MLP and the residuals, and how far attention stretches."""

from ..statement import Statement
from .calculus import ArrayLike, M, N
from .exact_block import ExactBlock
from .heads import collapse
from .lemmas import linear, renormed, stretched, summed
from .registry import OURS, SHI, theorem

SPEED = "docs/speed.md; compare Karagodin et al. (2025), arXiv 2510.22026"


@theorem("shi2022_lemma1_1_up", f"{SHI}, Lemma 1(1)", needs="block")
def expansion(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(Y W_1) <= ||W_1|| d_M(Y)."""
    return _linear(q, q.data.normed, q.block.up.kernel, q.norms.up)


@theorem("shi2022_lemma1_1_down", f"{SHI}, Lemma 1(1)", needs="block")
def projection(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(F W_2) <= ||W_2|| d_M(F)."""
    return _linear(q, q.data.activated, q.block.down.kernel, q.norms.down)


def _linear(q: ExactBlock[M, N], hidden: ArrayLike, kernel: ArrayLike, norm: N) -> Statement[N]:
    c = q.c
    known = c.alike(hidden) | ~(kernel != 0).any()
    return c.zero_where(known, linear(c, c.matrix(hidden), c.weight(kernel), norm))


@theorem("shi2022_lemma1_2_activation", f"{SHI}, Lemma 1(2), with the activation's slope", needs="block")
def activation(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(phi(P)) <= L d_M(P)."""
    c, wide = q.c, q.c.matrix(q.data.pre_activation)
    found = stretched(c, c.activation(wide, q.architecture.activation), q.slope, c.distance(wide))
    return c.zero_where(c.alike(q.data.pre_activation), found)


@theorem("shi2022_lemma1_3_attention", f"{SHI}, Lemma 1(3)", needs="block")
def residual_attn(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(X + M) <= d_M(X) + d_M(M), M what attention adds."""
    return _sum(q, q.data.input, q.data.mixed)


@theorem("shi2022_lemma1_3_mlp", f"{SHI}, Lemma 1(3)", needs="block")
def residual_mlp(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(Y + M) <= d_M(Y) + d_M(M), M what the MLP adds."""
    return _sum(q, q.data.normed, q.data.mlp)


def _sum(q: ExactBlock[M, N], one: ArrayLike, other: ArrayLike) -> Statement[N]:
    c = q.c
    x, y = c.matrix(one), c.matrix(other)
    return c.zero_where(c.alike(one) & c.alike(other), summed(c, c.add(x, y), c.distance(x), c.distance(y)))


@theorem("layer_norm_update_attn", SPEED, needs="block")
def update_attn(q: ExactBlock[M, N]) -> Statement[N]:
    """||LN(X + M) - LN(X)||_F <= G (||S^-1 M C||_F ||T^-1 M C||_F)^(1/2), M what attention adds, S, T the stds."""
    return _renormed(q, q.data.input, q.data.mixed, q.block.norm_attn.scale)


@theorem("layer_norm_update_mlp", SPEED, needs="block")
def update_mlp(q: ExactBlock[M, N]) -> Statement[N]:
    """||LN(Y + M) - LN(Y)||_F <= G (||S^-1 M C||_F ||T^-1 M C||_F)^(1/2), M what the MLP adds, S, T the stds."""
    return _renormed(q, q.data.normed, q.data.mlp, q.block.norm_mlp.scale)


def _renormed(q: ExactBlock[M, N], hidden: ArrayLike, update: ArrayLike, scale: ArrayLike) -> Statement[N]:
    c = q.c
    known = ~(update != 0).any() | ~(scale != 0).any()
    return c.zero_where(known, renormed(c, c.matrix(hidden), c.matrix(update), scale, q.architecture.eps))


@theorem("attention_stretch_by_head", OURS, needs="block")
def stretch_by_head(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(U) <= (1 + sum_h sqrt(lambda_h) ||W_h||) d_M(X)."""
    return _stretched(q, q.added_by_head)


@theorem("attention_stretch_joint", OURS, needs="block")
def stretch_joint(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(U) <= (1 + max_h sqrt(lambda_h) ||W_V|| ||W_O||) d_M(X)."""
    return _stretched(q, q.added_jointly)


@theorem("attention_stretch_together", OURS, needs="block")
def stretch_together(q: ExactBlock[M, N]) -> Statement[N]:
    """d_M(U) <= (1 + ||sum_h J A_h A_h^T J||^(1/2) ||sum_h W_h W_h^T||^(1/2)) d_M(X)."""
    return _stretched(q, q.added_together)


def _stretched(q: ExactBlock[M, N], added: N) -> Statement[N]:
    bound = (q.one + added) * q.distance + q.row_defect
    return q.c.zero_where(q.level, Statement(q.c.distance(q.pre_attn), bound))


@theorem("cubic_collapse_heads", f"{OURS}; compare Dong et al. (2021), arXiv 2103.03404", needs="block")
def cubic_heads(q: ExactBlock[M, N]) -> Statement[N]:
    """D(sum_h A_h X W_h) <= sum_h ||W_h|| tanh(||W_Q^h W_K^hT|| D(X)^2 / (4 H^(1/2))) D(X), A_h the exact softmax."""
    mixed, bound = q.over_heads(collapse)
    known = (q.known.level | q.known.silent).all()
    return q.c.zero_where(known, Statement(q.c.diameter(mixed), bound * q.diameter))
