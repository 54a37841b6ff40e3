"""The ladder of bounds on d_M(output) / d_M(input) of one post-LN block, and the aggregation over sentences.

Notation as in `reference`; A_h attention of head h, W_h its value kernel times its output kernel, W_1, W_2 the
MLP's kernels, J and C the centring of tokens and of features, g1 and g2 the LayerNorm gains, s1_i and s2_i the
LayerNorm standard deviations, [1 - L, L] the range of slopes of the activation. Every rung bounds the one below:

    L0  (1 + L s^2) (1 + N r s) |g1| |g2| / (min s1 min s2), s and r = max ||J A_h|| global
    L1  the same with this layer's norms instead of s and r
    L2  a f |g2| / sqrt(product of the two smallest s1 and the two smallest s2)
    L2b a f |g2| sqrt(largest eigenvalue of K), K = (diag(p) sum p - p p^T) / n, p_i = 1 / (s1_i s2_i)
    L3  f |g2| times the norm of X -> sqrt(K) (X + sum_h A_h X W_h) C
    L4  f |g2| sqrt(<C U, K C U>) / d_M(X), U the residual sum before the first LayerNorm
    L5  what theorem 3 of docs/rates.md makes of the MLP's residual after a fit by lines, where that is less than L4
"""

import functools
import itertools
import math

import numpy as np
import scipy.sparse.linalg
from scipy.optimize import minimize_scalar

from support.reference import (
    ACTIVATIONS,
    Array,
    Run,
    Tensors,
    Weights,
    attention_entropy,
    attention_similarity,
    centre_tokens,
    effective_rank,
    ergodicity_coefficient,
    first_token_attention,
    forward,
    mixing_rate,
    principal_alignment,
    principal_directions,
    relative_distance,
    sink_strength,
    stable_rank,
    subspace_distance,
    token_cosine_similarity,
    token_norm,
)

RATES = ("actual", "L5", "L4", "L3", "L2b", "L2", "L1", "L0")
DENSE_LIMIT = 600  # unknowns up to which L3 is a plain SVD of the Kronecker matrix


def norm(matrix: Array) -> float:
    """Spectral norm."""
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


@functools.cache
def largest_slope(activation: str) -> float:
    """Maximum of the activation's derivative, found numerically (complex step, then a bounded search)."""
    if activation == "relu":
        return 1.0
    slopes = {
        "gelu": lambda x: (
            0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        ),
        "gelu_tanh": lambda x: _complex_step("gelu_tanh", x),
        "silu": lambda x: _complex_step("silu", x),
    }
    name = ACTIVATIONS[activation].__name__
    found = minimize_scalar(lambda x: -slopes[name](x), bounds=(0.5, 4.0), method="bounded", options={"xatol": 1e-12})
    return -float(found.fun)


def _complex_step(name: str, x: float) -> float:
    z = complex(x, 1e-30)
    if name == "silu":
        return (z / (1.0 + np.exp(-z))).imag / 1e-30
    return (0.5 * z * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))).imag / 1e-30


class Layer:
    """The constants of one block that do not depend on the sentence."""

    def __init__(self, w: Weights, layer: int):
        stem = f"encoder.layer.{layer}."
        self.value, _ = w.affine(layer, "attention.self.value")
        self.output, _ = w.affine(layer, "attention.output.dense")
        self.w1, self.b1 = w.affine(layer, "intermediate.dense")
        self.w2, _ = w.affine(layer, "output.dense")
        self.shift1, self.shift2 = (w.norm(stem + f"{part}output.LayerNorm")[1] for part in ("attention.", ""))
        self.phi = ACTIVATIONS[w.config.get("hidden_act", "gelu")]
        self.heads = [self.value[:, cut] @ self.output[cut] for cut in map(w.head_columns, range(w.heads))]
        gain1, gain2 = w.norm(stem + "attention.output.LayerNorm")[0], w.norm(stem + "output.LayerNorm")[0]
        self.gains1, self.gains2 = gain1, gain2
        self.gain1, self.gain2 = float(np.abs(gain1).max()), float(np.abs(gain2).max())
        self.slope = largest_slope(w.config.get("hidden_act", "gelu"))
        self.principal = principal_directions(self.value @ self.output)
        self.head_norms = [norm(m) for m in self.heads]
        self.concatenated = norm(self.value) * norm(self.output)
        self.stacked = norm(sum(m @ m.T for m in self.heads))
        self.norm1, self.norm2 = norm(self.w1), norm(self.w2)
        self.mlp = min(self._centred_mlp(gain1), self.gain1 * (1.0 + self.slope * self.norm1 * self.norm2))

    def _centred_mlp(self, gain: Array) -> float:
        d = len(gain)
        feature = np.eye(d) - np.full((d, d), 1.0 / d)
        linear = norm(np.diag(gain) @ (np.eye(d) + 0.5 * self.w1 @ self.w2) @ feature)
        return linear + (self.slope - 0.5) * norm(np.diag(gain) @ self.w1) * norm(self.w2 @ feature)

    def attention_factor(self, attn: Array) -> float:
        """The smallest of three bounds on d_M(X + sum A_h X W_h) / d_M(X)."""
        rates = [mixing_rate(a) for a in attn]
        per_head = math.fsum(r * m for r, m in zip(rates, self.head_norms, strict=True))
        concatenated = max(rates) * self.concatenated
        gram = sum(centre_tokens(a) @ centre_tokens(a).T for a in attn)
        cauchy = math.sqrt(norm(gram) * self.stacked)
        return 1.0 + min(per_head, concatenated, cauchy)


def ladder(layers: list[Layer], run: Run) -> dict[str, Array]:
    """Every rung for every block of one sentence; also `std_product` and L1's `threshold`."""
    top_rate = max(mixing_rate(a) for heads in run.attn for a in heads)
    top_norm = max(max(*layer.head_norms, layer.norm1, layer.norm2) for layer in layers)
    rows = [block_rungs(layer, run, k, top_rate, top_norm) for k, layer in enumerate(layers)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def block_rungs(layer: Layer, run: Run, k: int, top_rate: float, top_norm: float) -> dict[str, float]:
    attn, s1, s2 = run.attn[k], run.std_attn[k], run.std_mlp[k]
    before = subspace_distance(run.hidden[k])
    rates = [mixing_rate(a) for a in attn]
    gains, product = layer.gain1 * layer.gain2, float(s1.min() * s2.min())
    here = math.fsum(r * m for r, m in zip(rates, layer.head_norms, strict=True))
    threshold = (1.0 + layer.slope * layer.norm1 * layer.norm2) * (1.0 + here) * gains
    everywhere = (1.0 + layer.slope * top_norm**2) * (1.0 + top_rate * len(attn) * top_norm) * gains
    a, f = layer.attention_factor(attn), layer.mlp * layer.gain2
    pair = pair_matrix(1.0 / (s1 * s2))
    spread = run.pre_attn[k] - run.pre_attn[k].mean(axis=1, keepdims=True)
    l4 = f * math.sqrt(np.sum(spread * (pair @ spread))) / before
    return {
        "actual": subspace_distance(run.hidden[k + 1]) / before,
        "L5": min(l4, residual_spectrum(layer, run, k) / before),
        "L4": l4,
        "L3": f * operator_norm(layer, attn, pair),
        "L2b": a * f * math.sqrt(norm(pair)),
        "L2": a * f / math.sqrt(np.prod(np.sort(s1)[:2]) * np.prod(np.sort(s2)[:2])),
        "L1": threshold / product,
        "L0": everywhere / product,
        "std_product": product,
        "threshold": threshold,
    }


def residual_spectrum(layer: Layer, run: Run, k: int) -> float:
    """Theorem 3 of docs/rates.md times d_M(X), with units scaled by the lengths of their rows alone, by plain SVDs."""
    std = run.std_mlp[k]
    normed = (run.pre_attn[k] - run.pre_attn[k].mean(axis=1, keepdims=True)) / run.std_attn[k][:, None]
    normed = normed * layer.gains1 + layer.shift1
    pre = normed @ layer.w1 + layer.b1
    values, vectors = np.linalg.eigh(pair_matrix(1.0 / std))
    root = vectors * np.sqrt(np.clip(values, 0.0, None)) @ vectors.T
    fitted, active = root @ pre, root @ layer.phi(pre)
    slopes = (fitted * active).sum(axis=0) / (fitted * fitted).sum(axis=0)
    out = (layer.w2 - layer.w2.mean(axis=1, keepdims=True)) * layer.gains2
    scale = np.linalg.norm(out, axis=1) ** -0.5
    skip = root @ normed
    linear = (skip - skip.mean(axis=1, keepdims=True)) * layer.gains2 + (fitted * slopes) @ out
    residual, scaled = (active - fitted * slopes) / scale, scale[:, None] * out
    own, rows, turned = (np.linalg.svd(m, compute_uv=False) for m in (residual, scaled, scaled @ linear.T))
    least = min(len(own), len(rows))
    rho, size = np.linalg.norm(own[:least] * rows[:least]), np.linalg.norm(linear)
    cross = min(size * rho, own[: len(turned)] @ turned[: len(own)])
    lengths = np.linalg.norm(run.hidden[k + 1] - layer.shift2, axis=1)
    gain = sum(
        (std[j] - std[i]) * (lengths[i] ** 2 * std[i] - lengths[j] ** 2 * std[j]) / (std[i] * std[j])
        for i in range(len(std))
        for j in range(i)
    )
    return math.sqrt(size**2 + 2 * cross + rho**2 + gain / len(std))


def pair_matrix(p: Array) -> Array:
    """K with <V, K V> = (1/n) sum over i < j of p_i p_j ||v_i - v_j||^2."""
    return (np.diag(p) * p.sum() - np.outer(p, p)) / len(p)


def operator_norm(layer: Layer, attn: Array, pair: Array) -> float:
    """Norm of X -> sqrt(K) (X + sum_h A_h X W_h) C over n x d matrices."""
    values, vectors = np.linalg.eigh(pair)
    root = vectors * np.sqrt(np.clip(values, 0.0, None)) @ vectors.T
    n, d = len(pair), len(layer.value)
    feature = np.eye(d) - np.full((d, d), 1.0 / d)
    if n * d <= DENSE_LIMIT:
        terms = [(np.eye(n), np.eye(d)), *zip(attn, layer.heads, strict=True)]
        return norm(sum(np.kron(root @ a, (m @ feature).T) for a, m in terms))

    def apply(x: Array) -> Array:
        x = x.reshape(n, d)
        y = x + sum(a @ (x @ v) @ o for a, v, o in factors)
        return (root @ (y - y.mean(axis=1, keepdims=True))).ravel()

    def adjoint(y: Array) -> Array:
        y = root @ y.reshape(n, d)
        y = y - y.mean(axis=1, keepdims=True)
        return (y + sum(a.T @ (y @ o.T) @ v.T for a, v, o in factors)).ravel()

    width = d // len(attn)
    cuts = [slice(h * width, (h + 1) * width) for h in range(len(attn))]
    factors = [(a, layer.value[:, cut], layer.output[cut]) for a, cut in zip(attn, cuts, strict=True)]
    gram = scipy.sparse.linalg.LinearOperator((n * d, n * d), matvec=lambda x: adjoint(apply(x)), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n * d)
    top = scipy.sparse.linalg.eigsh(gram, k=1, which="LA", v0=start, ncv=40, tol=1e-13, return_eigenvectors=False)
    return math.sqrt(float(top[0]))


def measure(layers: list[Layer], run: Run) -> dict[str, Array]:
    """Every per-sentence quantity of a diagnosis, by its name there; the rungs under their own names."""
    hidden = {
        "cosine_similarity": token_cosine_similarity,
        "relative_distance": relative_distance,
        "subspace_distance": subspace_distance,
        "effective_rank": effective_rank,
        "stable_rank": stable_rank,
        "token_norm": token_norm,
    }
    heads = {
        "mixing_rate": mixing_rate,
        "ergodicity_coefficient": ergodicity_coefficient,
        "attention_entropy": attention_entropy,
        "sink_strength": sink_strength,
        "first_token_attention": first_token_attention,
    }
    measured = {name: np.array([f(x) for x in run.hidden]) for name, f in hidden.items()}
    measured |= {name: np.array([[f(a) for a in block] for block in run.attn]) for name, f in heads.items()}
    successive = [attention_similarity(*pair) for pair in itertools.pairwise(run.attn)]
    measured["attention_similarity"] = np.array(successive)  # from the second layer on
    aligned = [principal_alignment(x, one.principal) for x, one in zip(run.hidden[1:], layers, strict=True)]
    measured["principal_alignment"] = np.array(aligned)
    return measured | ladder(layers, run) | {"std_attn": run.std_attn, "std_mlp": run.std_mlp}


def diagnose(
    tensors: Tensors, config: dict, sentences: list[tuple[list[int], list[int]]]
) -> dict[str, dict[str, Array]]:
    """Aggregate `measure` over sentences given as (token ids, segment ids).

    Returns name -> {"mean", "std", "min", "max", "count"}: over sentences, except that `min` and `max` of the
    LayerNorm stds run over all tokens (their mean and std over the sentences' token means).
    """
    w = Weights(tensors, config)
    layers = [Layer(w, k) for k in range(w.layers)]
    measured = [measure(layers, forward(tensors, config, *sentence)) for sentence in sentences]
    return {
        name: aggregate([m[name] for m in measured], per_token=name in ("std_attn", "std_mlp")) for name in measured[0]
    }


def aggregate(values: list[Array], *, per_token: bool) -> dict[str, Array]:
    """Spread over sentences; a NaN leaves its sentence out."""
    middle = np.stack([v.mean(axis=1) if per_token else v for v in values])
    low = np.stack([v.min(axis=1) if per_token else v for v in values])
    high = np.stack([v.max(axis=1) if per_token else v for v in values])
    return {
        "mean": np.nanmean(middle, axis=0),
        "std": np.nanstd(middle, axis=0),
        "min": np.nanmin(low, axis=0),
        "max": np.nanmax(high, axis=0),
        "count": np.sum(~np.isnan(middle), axis=0),
    }
