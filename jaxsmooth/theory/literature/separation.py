"""Smoothing that helps: when mixing tokens tells their classes further apart, and when it does not.

Proofs are in docs/separation.md.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from ...errors import arguments_checked
from ...linalg.norms import binary_size, quotient
from ...linalg.precision import at_least_float32, matmul
from ..consensus import centre_tokens, real_tokens
from ..statement import Statement


@at_least_float32
def class_separation(
    hidden: Float[Array, "*B T D"], labels: Int[Array, "*B T"], mask: Bool[Array, "*B T"]
) -> Float[Array, "*B"]:
    """Fisher's ratio of scatters: sum_i ||mu_c(i) - mu||^2 / sum_i ||x_i - mu_c(i)||^2, between classes over within.

    Rows are tokens, or texts: the embeddings of T labelled texts are one "sentence" of T rows. With the texts as
    classes of their tokens it says how much more tokens differ from text to text than within one.

    Args:
      hidden: rows, [..., T, D].
      labels: the class of each row, any integers, [..., T].
      mask: True on rows that count, [..., T].

    Returns:
      [...]; infinite where every class is one point and classes differ, NaN where all rows are equal.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0], [2.0], [10.0], [12.0]])
    >>> class_separation(x, jnp.array([0, 0, 1, 1]), jnp.ones(4, bool))
    Array(25., dtype=float32)

    References: Fisher (1936), The use of multiple measurements in taxonomic problems; of tokens, after Zhang and Papyan
    (2026), arXiv 2602.09297.
    """
    real = real_tokens(hidden, mask)
    rows = centre_tokens(real / binary_size(real, (-2, -1)), mask)
    same = (labels[..., None] == labels[..., None, :]) & mask[..., None] & mask[..., None, :]
    count = jnp.maximum(jnp.sum(same, axis=-1, keepdims=True), 1).astype(hidden.dtype)
    # Within a class, from the class's mean: centred again, so that equal rows leave nothing but rounding.
    means = matmul(same.astype(hidden.dtype), rows) / count
    apart = real_tokens(rows - means, mask)
    apart = apart - real_tokens(matmul(same.astype(hidden.dtype), apart) / count, mask)
    between, inside = (jnp.sum(part * part, axis=(-2, -1)) for part in (means, apart))
    return jnp.where(between > 0, quotient(between, inside, jnp.inf), quotient(between, inside))


@arguments_checked
def zhang2026_smoothing(
    attn: Float[Array, "T T"] | Float[np.ndarray, "T T"],
    hidden: Float[Array, "T D"] | Float[np.ndarray, "T D"],
    labels: Int[Array, " T"] | Int[np.ndarray, " T"],
) -> Statement[np.float64]:
    """F(AX)^(1/2) >= (b F(X)^(1/2) - k) / (w + l F(X)^(1/2)): what mixing by A leaves of the separation F of classes.

    Over deviations from the mean, b is A's least gain between class means, w its norm within classes, l and k its norms
    from the one into the other. Where A keeps the two apart (l = k = 0) and b > w, smoothing separates every X better;
    d_M shrinks all the same if w and b are below 1. Equality where A multiplies both by one number each, as
    a I + b P + c 11^T/n with P the averaging within classes: F grows by exactly ((a + b) / a)^2, and c is not in it.

    Args:
      attn: A, square, any matrix whose rows have one sum, [T, T].
      hidden: X, [T, D].
      labels: the class of each row, [T].

    Returns:
      A `Statement` of the square roots, the bound on the left; 0 where the bound says nothing. Applicable where the
      rows of A have one sum to 1e-9, there are two classes or more, and neither X nor AX has classes that are points.

    >>> import numpy as np
    >>> mix = 0.5 * np.eye(4) + 0.5 * np.kron(np.eye(2), np.full((2, 2), 0.5))
    >>> x = np.array([[0.0], [2.0], [4.0], [6.0]])
    >>> [round(float(side), 9) for side in zhang2026_smoothing(mix, x, np.array([0, 0, 1, 1]))[:2]]
    [4.0, 4.0]

    References: that smoothing can help, after Zhang and Papyan (2026), arXiv 2602.09297; the theorem is that of
    docs/separation.md.
    """
    a, x = (np.asarray(array, np.float64) for array in (attn, hidden))
    classes, member = np.unique(np.asarray(labels), return_inverse=True)
    indicator = np.eye(len(classes))[member] / np.sqrt(np.maximum(np.bincount(member, minlength=len(classes)), 1))
    mean = np.full((len(a), len(a)), 1 / max(len(a), 1))
    between = indicator @ indicator.T - mean
    within = np.eye(len(a)) - indicator @ indicator.T
    gains = np.linalg.svd(between @ a @ between, compute_uv=False)
    least = float(gains[len(classes) - 2]) if len(classes) > 1 else 0.0
    pairs = ((within, within), (within, between), (between, within))
    spread, out, into = (_norm(left @ a @ right) for left, right in pairs)
    start, end = (_root_of_ratio(between @ state, within @ state) for state in (x, a @ x))
    sums = a.sum(axis=1)
    even = bool(np.ptp(sums) <= 1e-9 * np.abs(sums).max()) if len(a) else False
    known = even and len(classes) > 1 and np.isfinite(start) and np.isfinite(end)
    bottom = spread + out * start
    bound = max(least * start - into, 0.0) / bottom if known and bottom > 0 else 0.0
    return Statement(np.float64(bound), np.float64(end), known)


def _norm(matrix: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(matrix, 2)) if matrix.size else 0.0


def _root_of_ratio(between: NDArray[np.float64], within: NDArray[np.float64]) -> float:
    """F^(1/2); infinite where nothing is left within classes but rounding."""
    over, under = np.linalg.norm(between), np.linalg.norm(within)
    return float(over / under) if under > 1e-12 * (over + under) else np.inf
