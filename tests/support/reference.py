"""An independent float64 BERT and its over-smoothing measurements, in numpy and scipy alone.

Written from the definitions, one unpadded sentence at a time and without any cleverness, so that it can referee
the library. It imports nothing of jaxsmooth and must stay so. Tensors carry their Hugging Face names and torch's
[out, in] layout. Rows are tokens (n of them), columns features (d).
"""

import dataclasses
import math

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize_scalar

Array = NDArray[np.float64]
Tensors = dict[str, NDArray]


@dataclasses.dataclass(frozen=True)
class Run:
    """Every intermediate value of one sentence. Leading axes: hidden L+1, all others L."""

    hidden: Array  # [L+1 n d], index 0 the embedding output
    attn: Array  # [L N n n]
    pre_attn: Array  # [L n d], the theory's U
    pre_mlp: Array  # [L n d], the theory's Z
    std_attn: Array  # [L n]
    std_mlp: Array  # [L n]


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + scipy.special.erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x * scipy.special.expit(x)


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "swish": silu,
}


class Weights:
    """Hugging Face tensors by short name, in float64 and [in, out] layout, with or without the `bert.` prefix."""

    def __init__(self, tensors: Tensors, config: dict):
        self.tensors = {name.removeprefix("bert."): np.asarray(value, np.float64) for name, value in tensors.items()}
        self.config = config
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]

    def affine(self, layer: int, name: str) -> tuple[Array, Array]:
        stem = f"encoder.layer.{layer}.{name}"
        return self.tensors[stem + ".weight"].T, self.tensors[stem + ".bias"]

    def norm(self, stem: str) -> tuple[Array, Array]:
        return self.tensors[stem + ".weight"], self.tensors[stem + ".bias"]

    def head_columns(self, head: int) -> slice:
        width = self.config["hidden_size"] // self.heads
        return slice(head * width, (head + 1) * width)


def normalise(x: Array, gain: Array, shift: Array, eps: float) -> tuple[Array, Array]:
    """LayerNorm and the std sqrt(var + eps) it divided by."""
    mean = x.mean(axis=1, keepdims=True)
    std = np.sqrt(((x - mean) ** 2).mean(axis=1) + eps)
    return gain * (x - mean) / std[:, None] + shift, std


def forward(tensors: Tensors, config: dict, tokens: list[int], segments: list[int] | None = None) -> Run:
    """Run one unpadded sentence through a post-LN BERT."""
    w = Weights(tensors, config)
    eps = config.get("layer_norm_eps", 1e-12)
    segments = [0] * len(tokens) if segments is None else segments
    table = w.tensors
    summed = (
        table["embeddings.word_embeddings.weight"][np.asarray(tokens)]
        + table["embeddings.position_embeddings.weight"][: len(tokens)]
        + table["embeddings.token_type_embeddings.weight"][np.asarray(segments)]
    )
    x, _ = normalise(summed, *w.norm("embeddings.LayerNorm"), eps)
    kept: dict[str, list] = {field.name: [] for field in dataclasses.fields(Run)}
    kept["hidden"].append(x)
    for layer in range(w.layers):
        values = block(w, layer, x, eps)
        for name, value in values.items():
            kept[name].append(value)
        x = values["hidden"]
    return Run(**{name: np.stack(values) for name, values in kept.items()})


def block(w: Weights, layer: int, x: Array, eps: float) -> dict[str, Array]:
    """One block: U = X + attention, Y = LN(U), Z = Y + MLP(Y), output LN(Z)."""
    (wq, bq), (wk, bk), (wv, bv) = (w.affine(layer, f"attention.self.{name}") for name in ("query", "key", "value"))
    wo, bo = w.affine(layer, "attention.output.dense")
    query, key, value = x @ wq + bq, x @ wk + bk, x @ wv + bv
    attn, u = [], x + bo
    for head in range(w.heads):
        cut = w.head_columns(head)
        logits = query[:, cut] @ key[:, cut].T / math.sqrt(cut.stop - cut.start)
        attn.append(scipy.special.softmax(logits, axis=1))
        u = u + attn[-1] @ value[:, cut] @ wo[cut]
    stem = f"encoder.layer.{layer}."
    y, std_attn = normalise(u, *w.norm(stem + "attention.output.LayerNorm"), eps)
    (w1, b1), (w2, b2) = w.affine(layer, "intermediate.dense"), w.affine(layer, "output.dense")
    z = y + ACTIVATIONS[w.config.get("hidden_act", "gelu")](y @ w1 + b1) @ w2 + b2
    out, std_mlp = normalise(z, *w.norm(stem + "output.LayerNorm"), eps)
    return {
        "hidden": out,
        "attn": np.stack(attn),
        "pre_attn": u,
        "pre_mlp": z,
        "std_attn": std_attn,
        "std_mlp": std_mlp,
    }


def centre_tokens(x: Array) -> Array:
    return x - x.mean(axis=0, keepdims=True)


def subspace_distance(x: Array) -> float:
    """d_M: Frobenius distance to the matrices whose rows are all equal."""
    return float(np.linalg.norm(centre_tokens(x)))


def relative_distance(x: Array) -> float:
    return subspace_distance(x) / float(np.linalg.norm(x))


def token_cosine_similarity(x: Array) -> float:
    """Mean cosine over ordered pairs of distinct tokens; NaN for a single token."""
    n = len(x)
    if n < 2:
        return math.nan
    pairs = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i in range(n) for j in range(n) if i != j]
    return math.fsum(pairs) / (n * (n - 1))


def entropy(p: Array) -> float:
    """-sum p ln p with 0 ln 0 = 0."""
    return float(scipy.special.entr(p).sum())


def effective_rank(x: Array) -> float:
    values = np.linalg.svd(x, compute_uv=False)
    return math.exp(entropy(values / values.sum()))


def stable_rank(x: Array) -> float:
    values = np.linalg.svd(x, compute_uv=False)
    return float((values**2).sum() / values[0] ** 2)


def singular_value_profile(x: Array) -> Array:
    """Singular values over the largest, descending, min(n, d) of them."""
    values = np.linalg.svd(x, compute_uv=False)
    return values / values[0]


def token_norm(x: Array) -> float:
    return float(np.mean([np.linalg.norm(row) for row in x]))


def dirichlet_energy(x: Array) -> float:
    """Complete graph: (1/n) sum over ordered pairs of ||x_i - x_j||^2."""
    return float(sum(np.sum((a - b) ** 2) for a in x for b in x)) / len(x)


def mean_average_distance(x: Array, convention: str) -> float:
    """Cosine distance: "pairs" averages over distinct pairs, "neighbours" divides its sum by n only."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    n = len(x)
    total = math.fsum(1.0 - unit[i] @ unit[j] for i in range(n) for j in range(n) if i != j)
    return total / {"pairs": n * (n - 1), "neighbours": n}[convention]


def frequency_ratio(x: Array) -> float:
    """High over low frequency: ||JX||_F / ||X - JX||_F."""
    return subspace_distance(x) / float(np.linalg.norm(x - centre_tokens(x)))


def composite_norm(x: Array) -> float:
    """sqrt(max column sum * max row sum) of absolute values (not a norm: the triangle inequality fails)."""
    return math.sqrt(np.abs(x).sum(axis=0).max() * np.abs(x).sum(axis=1).max())


def dong_residual(x: Array, centre: str) -> float:
    """Composite norm of X - 1 c^T over that of X.

    `centre`: "mean"; "median", the column medians, which minimise the max column sum alone; or "minimiser",
    which minimises the composite norm itself (only for small arrays).
    """
    if centre == "minimiser":
        return smallest_composite_residual(x) / composite_norm(x)
    row = {"mean": np.mean, "median": np.median}[centre](x, axis=0)
    return composite_norm(x - row) / composite_norm(x)


def smallest_composite_residual(x: Array) -> float:
    """min over c of composite_norm(X - 1 c^T), globally.

    sqrt(f g) = min over w > 0 of (w f + g / w) / 2 for the column-sum norm f and the row-sum norm g, and the
    inner minimum over c is a linear programme. The outer function of w is scanned, then refined.
    """

    def value(log_w: float) -> float:
        return weighted_residual(x, math.exp(log_w))

    # At the optimum w^2 = g / f, and for any matrix 1/n <= g/f <= d.
    n, d = x.shape
    grid = np.linspace(-0.5 * math.log(n), 0.5 * math.log(d), 41)
    best = int(np.argmin([value(w) for w in grid]))
    span = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    refined = minimize_scalar(value, bounds=span, method="bounded", options={"xatol": 1e-10})
    return min(float(refined.fun), value(grid[best]))


def weighted_residual(x: Array, w: float) -> float:
    """min over c of (w max_j sum_i |x_ij - c_j| + max_i sum_j |x_ij - c_j| / w) / 2, as a linear programme."""
    n, d = x.shape
    # Variables: c [d], e [n d] >= |x - c|, f, g.
    size = d + n * d + 2
    cost = np.zeros(size)
    cost[-2:] = 0.5 * w, 0.5 / w
    rows, bounds = [], []
    for i in range(n):
        for j in range(d):
            for sign in (1.0, -1.0):
                row = np.zeros(size)
                row[j], row[d + i * d + j] = -sign, -1.0
                rows.append(row)
                bounds.append(-sign * x[i, j])
    for axis, count, slot in ((0, d, -2), (1, n, -1)):
        for k in range(count):
            chosen = np.zeros((n, d))
            chosen[(slice(None), k) if axis == 0 else (k, slice(None))] = 1.0
            row = np.zeros(size)
            row[d:-2], row[slot] = chosen.ravel(), -1.0
            rows.append(row)
            bounds.append(0.0)
    free = [(None, None)] * d + [(0, None)] * (size - d)
    return float(linprog(cost, np.array(rows), np.array(bounds), bounds=free, method="highs").fun)


def mixing_rate(attn: Array) -> float:
    """sqrt(lambda) of Shi et al.: the spectral norm of the token-centred attention matrix."""
    return float(np.linalg.svd(centre_tokens(attn), compute_uv=False)[0])


def ergodicity_coefficient(attn: Array) -> float:
    """Dobrushin: half the largest L1 distance between two rows."""
    return 0.5 * max(float(np.abs(a - b).sum()) for a in attn for b in attn)


def sink_strength(attn: Array) -> float:
    """The largest column mean."""
    return max(sum(float(row[key]) for row in attn) / len(attn) for key in range(len(attn)))


def first_token_attention(attn: Array) -> float:
    """Of a matrix without padding."""
    return float(np.mean([row[0] for row in attn]))


def attention_similarity(attn: Array, other: Array) -> float:
    """Cosine of the means over heads, [N T T] each."""
    one, two = (sum(heads).ravel() for heads in (attn, other))
    return float(one @ two / math.sqrt((one @ one) * (two @ two)))


def principal_directions(matrix: Array) -> Array:
    """Orthonormal columns, [D 1 or 2]: a real basis of v, v F = mu v, |mu| largest, by scipy's left eigenvectors."""
    values, left = scipy.linalg.eig(matrix, left=True, right=False)
    vector = left[:, np.argmax(np.abs(values))]
    real = np.column_stack([vector.real, vector.imag])
    own, sizes, _ = np.linalg.svd(real, full_matrices=False)
    return own[:, sizes > 1e-9 * sizes[0]]


def principal_alignment(hidden: Array, directions: Array) -> float:
    """Mean over tokens of the share of their length in the span."""
    shares = [np.linalg.norm(directions @ np.linalg.lstsq(directions, x)[0]) / np.linalg.norm(x) for x in hidden]
    return float(np.mean(shares))


def attention_entropy(attn: Array) -> float:
    """Mean over rows, in nats."""
    return entropy(attn) / len(attn)
