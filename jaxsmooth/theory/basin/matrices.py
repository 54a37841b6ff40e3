"""Matrices with error bounds that the certificate is made of: inverses, adapted norms, norms of multilinear maps.

Host only, float64; everything returned is an upper bound or a `NormBall` that contains what it stands for.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import epsilon, tiny
from ...linalg.norm_ball import NormBall, largest_eigenvalue, size, up
from ..theorems.calculus import ArrayLike

SWEEPS = 400

Matrix = NDArray[np.float64]


def exact(matrix: ArrayLike) -> NormBall:
    """A given floating-point matrix."""
    return NormBall(np.ascontiguousarray(np.asarray(matrix, np.float64)), 0.0)


def transposed(ball: NormBall) -> NormBall:
    return NormBall(ball.mid.T, ball.error)


def negative(ball: NormBall) -> NormBall:
    return NormBall(-ball.mid, ball.error)


def stacked(*balls: NormBall) -> NormBall:
    """One under the other."""
    return NormBall(np.concatenate([ball.mid for ball in balls]), up(sum(ball.error for ball in balls)))


def scaled(ball: NormBall, low: float, high: float) -> NormBall:
    """Times a positive number known to lie in [low, high]."""
    middle = 0.5 * low + 0.5 * high
    found = ball.columns(np.full(ball.mid.shape[-1], middle))
    return NormBall(found.mid, up(found.error + up(high - low) * up(size(ball.mid) + ball.error)))


def columns(ball: NormBall, factors: NormBall, most: float | None = None) -> NormBall:
    """Column k times factor k, `factors` a row that is known to within its error; `most` at least ||ball||."""
    found = ball.columns(factors.mid[0])
    most = size(ball.mid) if most is None else most
    return NormBall(found.mid, up(found.error + factors.error * up(most + ball.error)))


def row_product(row: NormBall, matrix: NormBall) -> NormBall:
    """A row times an exact matrix, the products and their sums without rounding: only the row's own error is left.

    A row passes four matrices on its way through a block; a bound of the roundings of ordinary products would grow by
    the matrix's Frobenius norm in each.
    """
    factors = row.mid[0][:, None]
    product = factors * matrix.mid
    below = _low_half(factors, matrix.mid, product)
    sums = [math.fsum(column) for column in np.concatenate([product, below]).T.tolist()]
    found = np.array(sums)[None]
    underflow = 64 * product.size * tiny(product)
    return NormBall(found, up(row.error * norm(matrix) + epsilon(found) * size(found) + underflow))


def _low_half(x: Matrix, y: Matrix, product: Matrix) -> Matrix:
    """x y - fl(x y), exactly where nothing under- or overflows: Dekker (1971), with Veltkamp's halves."""
    (a, b), (c, d) = _halves(x), _halves(y)
    return ((a * c - product) + a * d + b * c) + b * d


def _halves(x: Matrix) -> tuple[Matrix, Matrix]:
    far = 134217729.0 * x
    high = far - (far - x)
    return high, x - high


def inverse(matrix: Matrix) -> NormBall:
    """Contains the inverse; not finite where the computed one is none: P^-1 - R = P^-1 (I - P R)."""
    guess = np.asarray(np.linalg.inv(matrix), np.float64)
    defect = negative(exact(matrix) @ exact(guess)) + exact(np.eye(len(matrix)))
    off = up(size(defect.mid) + defect.error)
    return NormBall(guess, up(size(guess) * off / (1 - off) * (1 + 1e-12)) if off < 0.5 else np.inf)


def adapted_roots(laws: list[Matrix], rate: float) -> list[Matrix]:
    """P_l with P_l P_l^T = I + M_l P_{l+1} P_{l+1}^T M_l^T / rate^2, cyclically: |e M_l P_{l+1}| <= rate |e P_l|.

    Computed by iteration, which converges if rate^L exceeds the spectral radius of M_1 ... M_L. Nothing rests on its
    accuracy: the certificate takes the roots as given matrices.
    """
    eye = np.eye(len(laws[0]))
    roots = [eye for _ in laws]
    for _ in range(SWEEPS):
        before = roots[0]
        for place in reversed(range(len(laws))):
            moved = laws[place] @ roots[(place + 1) % len(laws)] / rate
            roots[place] = np.asarray(np.linalg.cholesky(eye + moved @ moved.T), np.float64)
        if np.max(np.abs(roots[0] - before)) <= 1e-9 * np.max(np.abs(before)):
            break
    return roots


def hadamard(left: NormBall, right: NormBall) -> NormBall:
    """Entry by entry."""
    product = left.mid * right.mid
    most = [float(np.max(np.abs(ball.mid), initial=0.0)) for ball in (left, right)]
    error = most[0] * right.error + left.error * (most[1] + right.error) + 4 * epsilon(product) * size(product)
    return NormBall(product, up(error))


def gram(ball: NormBall) -> NormBall:
    """A^T A."""
    return transposed(ball) @ ball


def norm(ball: NormBall) -> float:
    """At least the spectral norm; an adapted norm makes many singular values nearly equal, so all are computed."""
    if not (np.all(np.isfinite(ball.mid)) and np.isfinite(ball.error)):
        return np.inf
    middle = NormBall(ball.mid if len(ball.mid) <= len(ball.mid.T) else ball.mid.T, 0.0)
    return up(np.sqrt(_largest(middle @ transposed(middle))) + ball.error)


def _largest(matrix: NormBall) -> float:
    """At least the largest eigenvalue of a positive semidefinite matrix."""
    if not np.any(matrix.mid):
        return matrix.error
    symmetric = (matrix.mid + matrix.mid.T) / 2
    return largest_eigenvalue(matrix, float(np.linalg.eigvalsh(symmetric)[-1]) * (1 + 1e-12))


def contracted_norm(products: NormBall, rows: NormBall) -> float:
    """At least the norm of x, y, ... -> sum_k (x a_k)(y b_k) ... r_k as a map of the tensor x y ...

    Its square is the largest eigenvalue of R^T G R, G the entrywise product of the Gram matrices of a, b, ...
    (`products`), R the rows r_k: the map's matrix with one row per unit has the Gram matrix G.
    """
    return up(np.sqrt(_largest(transposed(rows) @ (products @ rows))))


def pooled_norm(rows: NormBall, maps: list[NormBall], norms: NDArray[np.float64]) -> float:
    """At least the norm of C -> sum_h g_h C W_h over matrices C of Frobenius norm 1; g_h the rows, ||W_h|| <= norms_h.

    With g = R U, R square, it is C -> sum_r u_r C Z_r, Z_r = sum_h R_hr W_h: at most ||U|| times the norm of all Z_r
    one under the other. U comes out with nearly orthonormal rows, and then little is lost.
    """
    plain = up(sum((np.linalg.norm(rows.mid, axis=1) * (1 + 1e-12) + rows.error) * norms))
    count, size_of = len(maps), rows.mid @ rows.mid.T
    if not (np.isfinite(plain) and np.trace(size_of) > 0):
        return plain
    root = np.asarray(np.linalg.cholesky(size_of + 1e-12 * np.trace(size_of) * np.eye(count)), np.float64)
    flat = NormBall(np.stack([one.mid.ravel() for one in maps]), up(sum(one.error for one in maps)))
    turned = exact(root.T) @ flat
    pooled = norm(NormBall(turned.mid.reshape(-1, maps[0].mid.shape[1]), turned.error))
    return min(plain, up(pooled * norm(inverse(root) @ rows)))


def gram_norm(gram: NormBall) -> float:
    """At least the largest eigenvalue of a large positive semidefinite matrix, cheaply."""
    return largest_eigenvalue(gram) if np.any(gram.mid) else gram.error
