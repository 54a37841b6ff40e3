"""The table of theorems that `verify` certifies. A theorem is one entry: a name, a source, a function of the facts.

Each function returns a `Claim`, lhs <= rhs, built from enclosures; the same function runs in floating point on
the device and on the host, and in Arb. Where the data's attention rows do not sum to exactly 1, because they are
floating-point numbers, the right sides carry the term that this costs; the statements
for exact arithmetic are proved in docs/theory.md.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..statement import Claim
from .quantities import BlockFacts, HeadFacts, NormFacts


class Theorem(NamedTuple):
    """One theorem.

    Attributes:
      name: as it stands in verify.json.
      source: who proved it, and where.
      claim: facts -> `Claim`.
    """

    name: str
    source: str
    claim: Callable[[Any], Claim]


# One head: the lemmas on its attention


def values(head: HeadFacts) -> Claim:
    """d_M(X W_h) <= ||W_h|| d_M(X)."""
    return Claim(head.c.distance(head.values), head.head_norm * head.distance)


def mixing(head: HeadFacts) -> Claim:
    """d_M(A X) <= ||J A|| d_M(X)."""
    return Claim(head.c.distance(head.mixed), head.mixing * head.distance + head.defect * head.mean_size)


def high_frequency(head: HeadFacts) -> Claim:
    """d_M(A X W_h) <= (n e^(2 alpha) / (e^(2 alpha) + n - 1))^(1/2) ||W_h|| d_M(X).

    alpha, the largest |score|, is taken after the shift of each row's scores that makes it least, which does not
    change the attention: e^(2 alpha) is then the largest ratio of two entries of one row.
    """
    c, one = head.c, head.c.number(1.0)
    spread = c.tokens / (one + (c.tokens - one) * c.entry_ratio(head.attn))
    sums = one + head.row_defect
    rest = head.defect * c.frobenius(c.mean_row(head.values))
    mixed = c.matmul(head.attn, head.values)
    return Claim(c.distance(mixed), sums * c.sqrt(spread) * head.head_norm * head.distance + rest)


def diameter(head: HeadFacts) -> Claim:
    """D(A X) <= tau(A) D(X), D the largest distance of two tokens."""
    c = head.c
    uneven = head.row_defect + head.row_defect
    bound = (head.ergodicity + uneven) * head.diameter + uneven * head.mean_size
    return Claim(c.diameter(head.mixed), bound)


def birkhoff(head: HeadFacts) -> Claim:
    """tau(A) <= tanh(Delta / 4), Delta = max log (a_ij a_kl) / (a_il a_kj)."""
    c, one = head.c, head.c.number(1.0)
    root = c.sqrt(c.cross_ratio(head.attn))
    return Claim(head.ergodicity, (one - root) / (one + root) + head.row_defect)


def mixing_by_ergodicity(head: HeadFacts) -> Claim:
    """||J A|| <= (n / 2)^(1/2) tau(A)."""
    c, two = head.c, head.c.number(2.0)
    uneven = head.row_defect + head.row_defect
    bound = c.sqrt(c.tokens / two) * (head.ergodicity + uneven) + c.sqrt(c.tokens) * uneven
    return Claim(head.mixing, bound)


def score_spread(head: HeadFacts) -> Claim:
    """Delta <= ||W_Q W_K^T|| D(X)^2 / H^(1/2): biases cancel."""
    bound = head.score_norm * head.diameter * head.diameter / head.root_width
    return Claim(head.c.logit_spread(head.logits), bound)


def mixing_before_attention(head: HeadFacts) -> Claim:
    """||J A|| <= (n / 2)^(1/2) tanh(||W_Q W_K^T|| d_M(X)^2 / (2 H^(1/2))), A the exact softmax."""
    c, two = head.c, head.c.number(2.0)
    inside = head.score_norm * head.distance * head.distance / (two * head.root_width)
    return Claim(c.norm(c.centre_tokens(head.exact_attn)), c.sqrt(c.tokens / two) * c.tanh(inside))


def cubic(head: HeadFacts) -> Claim:
    """D(A X W_h) <= ||W_h|| tanh(||W_Q W_K^T|| D(X)^2 / (4 H^(1/2))) D(X), A the exact softmax."""
    mixed, factor = _collapse(head)
    return Claim(head.c.diameter(mixed), factor * head.diameter)


def _collapse(head: HeadFacts) -> tuple[Any, Any]:
    """A X W_h, A the exact softmax, and by what it shrinks the diameter."""
    c = head.c
    inside = head.score_norm * head.diameter * head.diameter / (c.number(4.0) * head.root_width)
    return c.matmul(head.exact_attn, head.values), head.head_norm * c.tanh(inside)


SHI = "after Shi et al. (2022), arXiv 2202.08625"
OURS = "docs/theory.md"
HEAD_THEOREMS = (
    Theorem("shi2022_lemma1_1_values", f"{SHI}, Lemma 1(1)", values),
    Theorem("shi2022_lemma1_4_mixing", f"{SHI}, Lemma 1(4)", mixing),
    Theorem("wang2022_high_frequency", "after Wang et al. (2022), arXiv 2203.05962", high_frequency),
    Theorem("dobrushin1956_diameter", "Dobrushin (1956); Seneta (2006), section 3.1", diameter),
    Theorem("birkhoff1957_ergodicity", "Birkhoff (1957); Seneta (2006), section 3.4", birkhoff),
    Theorem("mixing_by_ergodicity", OURS, mixing_by_ergodicity),
    Theorem("score_spread", OURS, score_spread),
    Theorem("mixing_before_attention", OURS, mixing_before_attention),
    Theorem("cubic_collapse", f"{OURS}; compare Dong et al. (2021), arXiv 2103.03404", cubic),
)


# One LayerNorm: the chain of bounds, from the data's own to the paper's


def norm_pairs(norm: NormFacts) -> Claim:
    """d_M(LN H) <= G [(1/n) sum_{i<j} |C h_i - C h_j|^2 / (std_i std_j)]^(1/2)."""
    return Claim(norm.normed, norm.gain * norm.c.pair_distance(norm.centred, norm.precision))


def norm_weighted(norm: NormFacts) -> Claim:
    """... <= G lambda_max(L_p)^(1/2) d_M(H C), p = 1 / std."""
    c = norm.c
    weight = c.sqrt(c.norm(c.laplacian(norm.precision)))
    return Claim(norm.normed, norm.gain * weight * c.distance(norm.centred))


def norm_two_smallest(norm: NormFacts) -> Claim:
    """... <= G d_M(H C) / (the two smallest stds)^(1/2)."""
    c = norm.c
    return Claim(norm.normed, norm.gain * c.distance(norm.centred) / c.sqrt(c.least(norm.stds, 2)))


def norm_least(norm: NormFacts) -> Claim:
    """... <= G d_M(H) / (the smallest std)."""
    c = norm.c
    return Claim(norm.normed, norm.gain * c.distance(norm.hidden) / c.least(norm.stds))


NORM_THEOREMS = (
    Theorem("layer_norm_pairs", OURS, norm_pairs),
    Theorem("layer_norm_weighted", OURS, norm_weighted),
    Theorem("layer_norm_two_smallest", OURS, norm_two_smallest),
    Theorem("layer_norm_least", f"{SHI}, in the proof of Theorem 2; {OURS}", norm_least),
)


# One block: the remaining lemmas, and the rates


def expansion(facts: BlockFacts) -> Claim:
    """d_M(Y W_1) <= ||W_1|| d_M(Y)."""
    c, normed = facts.c, facts.c.matrix(facts.data.normed)
    return Claim(c.distance(c.matmul(normed, c.weight(facts.block.up))), facts.norms.up * c.distance(normed))


def projection(facts: BlockFacts) -> Claim:
    """d_M(F W_2) <= ||W_2|| d_M(F)."""
    c, wide = facts.c, facts.c.matrix(facts.data.activated)
    return Claim(c.distance(c.matmul(wide, c.weight(facts.block.down))), facts.norms.down * c.distance(wide))


def activation(facts: BlockFacts) -> Claim:
    """d_M(phi(P)) <= L d_M(P)."""
    c, wide = facts.c, facts.c.matrix(facts.data.pre_activation)
    return Claim(c.distance(c.activation(wide, facts.block.activation)), facts.slope * c.distance(wide))


def residual_attn(facts: BlockFacts) -> Claim:
    """d_M(X + M) <= d_M(X) + d_M(M), M what attention adds."""
    return _sum(facts, facts.data.input, facts.data.mixed)


def residual_mlp(facts: BlockFacts) -> Claim:
    """d_M(Y + M) <= d_M(Y) + d_M(M), M what the MLP adds."""
    return _sum(facts, facts.data.normed, facts.data.mlp)


def _sum(facts: BlockFacts, one: Any, other: Any) -> Claim:
    c = facts.c
    x, y = c.matrix(one), c.matrix(other)
    return Claim(c.distance(c.add(x, y)), c.distance(x) + c.distance(y))


def cubic_heads(facts: BlockFacts) -> Claim:
    """D(sum_h A_h X W_h) <= sum_h ||W_h|| tanh(||W_Q^h W_K^hT|| D(X)^2 / (4 H^(1/2))) D(X), A_h the exact softmax."""
    mixed, bound = facts.over_heads(_collapse)
    return Claim(facts.c.diameter(mixed), bound * facts.diameter)


def _stretch(which: int) -> Callable[[BlockFacts], Claim]:
    def claim(facts: BlockFacts) -> Claim:
        bound = facts.stretches[which] * facts.distance + facts.row_defect
        return Claim(facts.c.distance(facts.pre_attn), bound)

    return claim


def _rate(factor: Any, stretch: Any, facts: BlockFacts) -> Claim:
    """d_M(H') <= factor (a d_M(X) + what the rows' rounding adds)."""
    return Claim(facts.after, factor * (stretch * facts.distance + facts.row_defect))


def rate_global(facts: BlockFacts) -> Claim:
    """L0: (1 + L s^2)(1 + sqrt(lambda) N s) G_1 G_2 / (sigma_1 sigma_2), s and lambda maxima over the whole model."""
    c, s = facts.c, facts.norms.largest
    heads = c.number(float(facts.block.heads.value.shape[0]))
    factor = (facts.one + facts.slope * s * s) * facts.gain_attn * facts.gain_mlp / _least_stds(facts)
    return _rate(factor, facts.one + facts.largest_mixing * heads * s, facts)


def rate_block(facts: BlockFacts) -> Claim:
    """L1: (1 + L ||W_1|| ||W_2||)(1 + sum_h sqrt(lambda_h) ||W_h||) G_1 G_2 / (sigma_1 sigma_2)."""
    factor = facts.mlp_lipschitz * facts.gain_attn * facts.gain_mlp / _least_stds(facts)
    return _rate(factor, facts.stretches[0], facts)


def rate_refined(facts: BlockFacts) -> Claim:
    """L2: a f G_2 / (the two smallest stds at each LayerNorm)^(1/2)."""
    c = facts.c
    smallest = c.sqrt(c.least(facts.std_attn, 2) * c.least(facts.std_mlp, 2))
    return _rate(facts.mlp * facts.gain_mlp / smallest, facts.stretch, facts)


def rate_pairwise(facts: BlockFacts) -> Claim:
    """L2b: a f G_2 lambda_max(L_P)^(1/2)."""
    return _rate(facts.mlp * facts.gain_mlp * facts.pair_weight, facts.stretch, facts)


def rate_operator(facts: BlockFacts) -> Claim:
    """L3: f G_2 ||T||.

    ||T|| lies between what T does to the data themselves and a lambda_max(L_P)^(1/2): enough to confirm the
    statement, whose right side may be replaced by anything smaller.
    """
    c = facts.c
    shown = c.pair_distance(c.centre_features(facts.mixed_directions), facts.precision) / facts.distance
    norm = c.hull(shown, facts.pair_weight * facts.stretch)
    bound = norm * facts.distance + facts.pair_weight * facts.row_defect
    return Claim(facts.after, facts.mlp * facts.gain_mlp * bound)


def rate_data(facts: BlockFacts) -> Claim:
    """L4: d_M(H') <= f G_2 [(1/n) sum_{i<j} P_i P_j |C u_i - C u_j|^2]^(1/2)."""
    c = facts.c
    pairs = c.pair_distance(c.centre_features(facts.pre_attn), facts.precision)
    return Claim(facts.after, facts.mlp * facts.gain_mlp * pairs)


def _least_stds(facts: BlockFacts) -> Any:
    return facts.c.least(facts.std_attn) * facts.c.least(facts.std_mlp)


BLOCK_THEOREMS = (
    Theorem("shi2022_lemma1_1_up", f"{SHI}, Lemma 1(1)", expansion),
    Theorem("shi2022_lemma1_1_down", f"{SHI}, Lemma 1(1)", projection),
    Theorem("shi2022_lemma1_2_activation", f"{SHI}, Lemma 1(2), with the activation's slope", activation),
    Theorem("shi2022_lemma1_3_attention", f"{SHI}, Lemma 1(3)", residual_attn),
    Theorem("shi2022_lemma1_3_mlp", f"{SHI}, Lemma 1(3)", residual_mlp),
    Theorem("attention_stretch_by_head", OURS, _stretch(0)),
    Theorem("attention_stretch_joint", OURS, _stretch(1)),
    Theorem("attention_stretch_together", OURS, _stretch(2)),
    Theorem("cubic_collapse_heads", f"{OURS}; compare Dong et al. (2021), arXiv 2103.03404", cubic_heads),
    Theorem("shi2022_rate_L0", f"{SHI}, Theorem 2, with gains and slope", rate_global),
    Theorem("block_rate_L1", OURS, rate_block),
    Theorem("refined_rate_L2", OURS, rate_refined),
    Theorem("pairwise_rate_L2b", OURS, rate_pairwise),
    Theorem("operator_rate_L3", OURS, rate_operator),
    Theorem("data_rate_L4", OURS, rate_data),
)


SCORE_THEOREMS = ("score_spread", "mixing_before_attention", "cubic_collapse")
"""Those on the softmax of (X W_Q + b)(X W_K + b')^T / H^(1/2) over all tokens, not every model's attention."""

HEAD_NAMES = tuple(theorem.name for theorem in HEAD_THEOREMS)
NAMES = (
    *HEAD_NAMES,
    *(theorem.name for theorem in BLOCK_THEOREMS),
    *(f"{theorem.name}_{site}" for theorem in NORM_THEOREMS for site in ("attn", "mlp")),
)


def head_claims(facts: HeadFacts, only: str | None = None) -> dict[str, Claim]:
    """Every theorem of a head, or one, by name."""
    return {theorem.name: theorem.claim(facts) for theorem in HEAD_THEOREMS if only in (None, theorem.name)}


def block_claims(facts: BlockFacts, only: str | None = None) -> dict[str, Claim]:
    """Every theorem of a block and of its two LayerNorms on the arrays they were given, or one, by name."""
    found = {theorem.name: theorem.claim(facts) for theorem in BLOCK_THEOREMS if only in (None, theorem.name)}
    b, data = facts.block, facts.data
    sites = {"attn": (data.pre_attn, b.scale_attn, b.bias_attn), "mlp": (data.pre_mlp, b.scale_mlp, b.bias_mlp)}
    for site, given in sites.items():
        wanted = [theorem for theorem in NORM_THEOREMS if only in (None, f"{theorem.name}_{site}")]
        if wanted:
            norm = NormFacts(facts.c, *given, b.eps)
            found |= {f"{theorem.name}_{site}": theorem.claim(norm) for theorem in wanted}
    return found


def source(name: str) -> str:
    """Who proved a theorem, and where."""
    for theorem in HEAD_THEOREMS + BLOCK_THEOREMS + NORM_THEOREMS:
        if name in (theorem.name, f"{theorem.name}_attn", f"{theorem.name}_mlp"):
            return theorem.source
    raise KeyError(name)
