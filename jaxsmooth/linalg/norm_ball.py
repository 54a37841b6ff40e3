"""Matrices known to within an error in Frobenius norm: host only. One number per matrix instead of a second product."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .intervals import Ball, epsilon, gamma, power_of_two, quiet, raised, tiny

# Candidates for a squared norm, relative to a lower estimate of it: the first that passes is taken.
MARGINS = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
POWER_STEPS = 60


@dataclasses.dataclass(frozen=True)
class NormBall:
    """Every matrix M with ||M - mid||_F <= error; float64."""

    mid: NDArray[np.float64]
    error: float

    @staticmethod
    def of(ball: Ball) -> "NormBall":
        """From an error entry by entry."""
        return NormBall(ball.mid, size(ball.rad))

    def __add__(self, other: "NormBall") -> "NormBall":
        total = self.mid + other.mid
        return NormBall(total, up(self.error + other.error + 4 * epsilon(total) * size(total)))

    def __matmul__(self, other: "NormBall") -> "NormBall":
        return self._product(other, stretch(self.mid), stretch(other.mid) + other.error)

    def times(self, other: "NormBall", norm: float, other_norm: float) -> "NormBall":
        """The product of two matrices that are in the balls and whose spectral norms are known to be small.

        Args:
          other: the right factor.
          norm: at least the norm of the left matrix.
          other_norm: at least that of the right one.

        >>> half = NormBall(0.5 * np.eye(9), 1e-3)
        >>> half.times(half, 0.501, 0.501).error < 1.1e-3
        True
        """
        return self._product(other, norm + self.error, other_norm)  # mid is no longer than the matrix and its error

    def _product(self, other: "NormBall", mid_norm: float, other_norm: float) -> "NormBall":
        """For L and R in the balls, L R - L_mid R_mid = (L - L_mid) R + L_mid (R - R_mid).

        `mid_norm` is at least ||L_mid||, and `other_norm` at least ||R||.
        """
        rounding = gamma(self.mid.shape[-1], self.mid) * size(self.mid) * size(other.mid)
        error = rounding + mid_norm * other.error + self.error * other_norm
        product = self.mid @ other.mid
        return NormBall(product, up(error + 16 * product.size * self.mid.shape[-1] * tiny(product)))

    def columns(self, factors: NDArray[np.float64]) -> "NormBall":
        """Every column times a number that is exact."""
        found = self.mid * factors
        largest = float(np.max(np.abs(factors), initial=0))
        return NormBall(found, up(self.error * largest + 4 * epsilon(found) * size(found) + found.size * tiny(found)))

    def norm(self) -> float:
        """At least the spectral norm of every such matrix; not finite if an entry is not."""
        if not np.all(np.isfinite(self.mid)):
            return np.inf
        scale = float(power_of_two(self.mid))
        rows = NormBall(self.mid / scale, 0.0)
        columns = NormBall(rows.mid.T, 0.0)
        gram = rows @ columns if len(rows.mid) <= len(columns.mid) else columns @ rows
        # Entries that the scaling makes too small to be normal are off by at most the smallest normal number.
        return up(up(np.sqrt(largest_eigenvalue(gram)) + rows.mid.size * tiny(rows.mid)) * scale + self.error)


def largest_eigenvalue(matrix: NormBall, estimate: float | None = None) -> float:
    """At least every eigenvalue of an exact symmetric matrix that is known to within `error`.

    If the Cholesky factorisation of l I - G runs to its end, l I - G + E is positive semidefinite for some
    ||E|| <= gamma / (1 - gamma) trace(l I - G): no eigenvalue of G exceeds l + ||E||.

    Args:
      matrix: square; positive semidefinite where no estimate is given.
      estimate: of the largest eigenvalue, from wherever; by default from a few steps of power iteration, which falls
        short where the largest eigenvalues are close to each other.

    Returns:
      An upper bound, relatively 1e-6 above a lower estimate where that is one of the largest eigenvalue's digits.

    Raises:
      ValueError: no level passes the factorisation, as with entries that are not finite.

    >>> bound = largest_eigenvalue(NormBall(np.diag([3.0, 1.0]), 0.0))
    >>> 3 <= bound < 3.00001
    True

    References: Higham (2002), Accuracy and stability of numerical algorithms, theorems 10.3 and 10.5.
    """
    symmetric = (matrix.mid + matrix.mid.T) / 2
    order = len(symmetric)
    estimate = _estimate(symmetric) if estimate is None else max(estimate, float(tiny(symmetric)))
    for margin in MARGINS:
        level = estimate * (1 + margin)
        shifted = -symmetric
        shifted[np.diag_indices(order)] += level
        try:
            np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        part = gamma(order + 1, shifted) / (1 - gamma(order + 1, shifted))
        trace = np.sum(np.abs(np.diag(shifted)))
        rounding = 8 * epsilon(shifted) * (np.max(np.abs(np.diag(symmetric))) + level + size(symmetric))
        return up(level + 2 * part * trace + rounding + matrix.error + 16 * order**2 * tiny(shifted))
    raise ValueError(f"no level up to {1 + MARGINS[-1]} times the estimate {estimate:.3g} passes Cholesky's test.")


@quiet
def size(matrix: NDArray[np.float64]) -> float:
    """||M||_F, raised past its rounding: one number, where `intervals.frobenius` encloses it from both sides."""
    rows = matrix.reshape(-1, matrix.shape[-1])
    scale = float(power_of_two(rows))
    scaled = rows * (1 / scale)
    square = np.sum(np.sum(scaled * scaled, axis=1)) * (1 + gamma(sum(rows.shape) + 2, rows))
    # Entries and squares too small to be normal may count as zero, in the matrix, after the scaling and in the sum.
    lost = rows.size * tiny(rows)
    return up(up(np.sqrt(square + 16 * lost)) * scale + lost)


def stretch(matrix: NDArray[np.float64]) -> float:
    """At least ||M||, cheaply: the lesser of ||M||_F and (||M||_1 ||M||_inf)^(1/2), for ||M E||_F <= ||M|| ||E||_F."""
    magnitude = np.abs(matrix)
    sums = np.max(np.sum(magnitude, axis=0), initial=0.0) * np.max(np.sum(magnitude, axis=1), initial=0.0)
    return min(size(matrix), up(np.sqrt(sums) * (1 + gamma(sum(matrix.shape), matrix))))


def up(value: float) -> float:
    """A number made by a handful of operations on non-negative ones, moved up past their rounding."""
    return float(value) * (1 + 64 * epsilon(np.float64(0))) + tiny(np.float64(0))


def raise_all(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for an array."""
    return raised(raised(values))


def _estimate(matrix: NDArray[np.float64]) -> float:
    """The largest eigenvalue, roughly and from below, of a positive semidefinite matrix."""
    vector = np.random.default_rng(0).standard_normal(len(matrix))
    value = 0.0
    for _ in range(POWER_STEPS):
        length = np.linalg.norm(vector)
        if length == 0:
            break
        vector = matrix @ (vector / length)
        value = float(np.linalg.norm(vector))
    return max(value, float(tiny(matrix)))
