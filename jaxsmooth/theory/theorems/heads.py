"""Theorems on one head: the lemmas on its attention.

Where the data's attention rows do not sum to exactly 1, because they are floating-point numbers, the right sides carry
the term that this costs (docs/certify.md); the statements for exact arithmetic are proved in docs/theory.md.
"""

from ..statement import Statement
from .calculus import M, N
from .lemmas import mixed, stretched
from .quantities import HeadQuantities
from .registry import OURS, SHI, theorem


@theorem("shi2022_lemma1_1_values", f"{SHI}, Lemma 1(1)", needs="head")
def values(q: HeadQuantities[M, N]) -> Statement[N]:
    """d_M(X W_h) <= ||W_h|| d_M(X)."""
    known = q.known.alike | q.known.silent
    return q.c.zero_where(known, stretched(q.c, q.values, q.head_norm, q.distance))


@theorem("shi2022_lemma1_4_mixing", f"{SHI}, Lemma 1(4)", needs="head")
def mixing(q: HeadQuantities[M, N]) -> Statement[N]:
    """d_M(A X) <= ||J A|| d_M(X)."""
    return q.c.zero_where(q.known.even, mixed(q.c, q.mixed, q.mixing, q.distance, q.defect, q.mean_size))


@theorem("wang2022_high_frequency", "after Wang et al. (2022), arXiv 2203.05962", needs="head")
def high_frequency(q: HeadQuantities[M, N]) -> Statement[N]:
    """d_M(A X W_h) <= (n e^(2 alpha) / (e^(2 alpha) + n - 1))^(1/2) ||W_h|| d_M(X).

    alpha, the largest |score|, is taken after the shift of each row's scores that makes it least, which does not
    change the attention: e^(2 alpha) is then the largest ratio of two entries of one row.
    """
    c, one = q.c, q.c.number(1.0)
    spread = c.tokens / (one + (c.tokens - one) * c.entry_ratio(q.attn))
    sums = one + q.row_defect
    rest = q.defect * c.frobenius(c.mean_row(q.values))
    after = c.matmul(q.attn, q.values)
    bound = sums * c.sqrt(spread) * q.head_norm * q.distance + rest
    return c.zero_where(q.known.even | q.known.silent, Statement(c.distance(after), bound, q.known.positive))


@theorem("dobrushin1956_diameter", "Dobrushin (1956); Seneta (2006), section 3.1", needs="head")
def diameter(q: HeadQuantities[M, N]) -> Statement[N]:
    """D(A X) <= tau(A) D(X), D the largest distance of two tokens."""
    uneven = q.row_defect + q.row_defect
    bound = (q.ergodicity + uneven) * q.diameter + uneven * q.mean_size
    return q.c.zero_where(q.known.even, Statement(q.c.diameter(q.mixed), bound))


@theorem("birkhoff1957_ergodicity", "Birkhoff (1957); Seneta (2006), section 3.4", needs="head")
def birkhoff(q: HeadQuantities[M, N]) -> Statement[N]:
    """tau(A) <= tanh(Delta / 4), Delta = max log (a_ij a_kl) / (a_il a_kj)."""
    c, one = q.c, q.c.number(1.0)
    root = c.sqrt(c.cross_ratio(q.attn))
    bound = (one - root) / (one + root) + q.row_defect
    return c.zero_where(q.known.even, Statement(q.ergodicity, bound, q.known.positive))


@theorem("mixing_by_ergodicity", OURS, needs="head")
def mixing_by_ergodicity(q: HeadQuantities[M, N]) -> Statement[N]:
    """||J A|| <= (n / 2)^(1/2) tau(A)."""
    c, two = q.c, q.c.number(2.0)
    uneven = q.row_defect + q.row_defect
    bound = c.sqrt(c.tokens / two) * (q.ergodicity + uneven) + c.sqrt(c.tokens) * uneven
    return c.zero_where(q.known.even, Statement(q.mixing, bound))


@theorem("sink_mixing", "docs/sinks.md", needs="head")
def sink_mixing(q: HeadQuantities[M, N]) -> Statement[N]:
    """||J A|| <= (n s min(1, 2 (1 - s)))^(1/2), s the mean attention that the strongest key receives."""
    c = q.c
    strength, sums = c.largest(c.received(q.attn)), c.number(1.0) + q.row_defect
    left = c.smaller(sums, c.number(2.0) * (sums - strength))
    return c.zero_where(q.known.even, Statement(q.mixing, c.sqrt(c.tokens * strength * left), q.known.positive))


@theorem("score_spread", OURS, needs="scores")
def score_spread(q: HeadQuantities[M, N]) -> Statement[N]:
    """Delta <= ||W_Q W_K^T|| D(X)^2 / H^(1/2), Delta the largest double difference of the scores: biases cancel."""
    bound = q.score_norm * q.diameter * q.diameter / q.root_width
    return q.c.zero_where(q.known.level, Statement(q.c.logit_spread(q.logits), bound))


@theorem("mixing_before_attention", OURS, needs="scores")
def mixing_before_attention(q: HeadQuantities[M, N]) -> Statement[N]:
    """||J A|| <= (n / 2)^(1/2) tanh(||W_Q W_K^T|| d_M(X)^2 / (2 H^(1/2))), A the exact softmax."""
    c, two = q.c, q.c.number(2.0)
    inside = q.score_norm * q.distance * q.distance / (two * q.root_width)
    bound = c.sqrt(c.tokens / two) * c.tanh(inside)
    return c.zero_where(q.known.level, Statement(c.norm(c.centre_tokens(q.exact_attn)), bound))


@theorem("cubic_collapse", f"{OURS}; compare Dong et al. (2021), arXiv 2103.03404", needs="scores")
def cubic(q: HeadQuantities[M, N]) -> Statement[N]:
    """D(A X W_h) <= ||W_h|| tanh(||W_Q W_K^T|| D(X)^2 / (4 H^(1/2))) D(X), A the exact softmax."""
    after, factor = collapse(q)
    return q.c.zero_where(q.known.level | q.known.silent, Statement(q.c.diameter(after), factor * q.diameter))


def collapse(q: HeadQuantities[M, N]) -> tuple[M, N]:
    """A X W_h, A the exact softmax, and by what it shrinks the diameter."""
    c = q.c
    inside = q.score_norm * q.diameter * q.diameter / (c.number(4.0) * q.root_width)
    return c.matmul(q.exact_attn, q.values), q.head_norm * c.tanh(inside)
