"""The spectral radius of a nonsymmetric matrix, enclosed from both sides: host only, float64.

Three bounds, each rounding-safe by itself; proofs are in docs/hypotheses.md. Powers give an upper bound (Gelfand) and,
by their traces, a lower one; a computed basis of eigenvectors, none of which is trusted, gives both.
"""

import numpy as np
from numpy.typing import NDArray

from ...errors import arguments_checked
from ...linalg.intervals import Interval, quiet
from ...linalg.norm_ball import NormBall, size, up

SQUARINGS = 14
# Relative error of a root that is taken by a logarithm and an exponential, with room to spare.
ROOT = 1e-12


@arguments_checked
@quiet
def spectral_radius(matrix: NormBall) -> Interval:
    """Encloses the largest eigenvalue modulus of every matrix of a ball.

    Args:
      matrix: square; of no row, the radius is 0.

    Returns:
      An `Interval`, at worst [0, inf].

    >>> found = spectral_radius(NormBall(np.array([[0.0, 4.0], [-1.0, 0.0]]), 0.0))
    >>> bool(2 - 1e-9 < found.lower <= 2 <= found.upper < 2 + 1e-9)
    True

    References: Gelfand (1941), Normierte Ringe; Bauer and Fike (1960), Norms and exclusion theorems.
    """
    if not len(matrix.mid):
        return Interval(np.float64(0), np.float64(0))
    if not (np.all(np.isfinite(matrix.mid)) and np.isfinite(matrix.error)):
        return Interval(np.float64(0), np.float64(np.inf))
    low, high = _by_powers(matrix)
    by_vectors = _by_eigenvectors(matrix)
    return Interval(np.float64(max(low, by_vectors[0])), np.float64(min(high, by_vectors[1])))


def _by_powers(matrix: NormBall) -> tuple[float, float]:
    """(|tr M^m| / n)^(1/m) <= rho(M) <= ||M^m||_F^(1/m), m = 1, 2, 4, ...; M^m is 2^shift times a ball."""
    order, low, high, shift, power = len(matrix.mid), 0.0, np.inf, 0, matrix
    for squaring in range(SQUARINGS + 1):
        length = up(size(power.mid) + power.error)
        if not np.isfinite(length):
            break
        if length == 0:
            return low, 0.0
        high = min(high, _root(length, shift, squaring) * (1 + ROOT))
        # The trace of an error is at most sqrt(n) times its Frobenius norm.
        rest = up(np.sqrt(order) * power.error) + 4 * order * np.finfo(np.float64).eps * np.sum(
            np.abs(np.diag(power.mid))
        )
        trace = (abs(float(np.trace(power.mid))) - up(float(rest))) / order
        if trace > 0:
            low = max(low, _root(trace, shift, squaring) * (1 - ROOT))
        if power.error >= length:
            break
        step = int(np.frexp(length)[1])
        power = NormBall(np.ldexp(power.mid, -step), up(np.ldexp(power.error, -step) + power.mid.size * 1e-300))
        power, shift = power @ power, 2 * (shift + step)
    return low, high


def _root(value: float, shift: int, squaring: int) -> float:
    """(value 2^shift)^(1 / 2^squaring)."""
    return float(np.exp2((np.log2(value) + shift) / 2.0**squaring))


def _by_eigenvectors(matrix: NormBall) -> tuple[float, float]:
    """From M V ~ V L with L normal: the eigenvalues of M are within r of L's, and as many in every group of discs.

    V^-1 M V = L + R with ||R|| <= (||Y M V - L|| + ||Y V - I|| ||L||) / (1 - ||Y V - I||) for any Y near V^-1.
    """
    try:
        values, vectors = np.linalg.eig(matrix.mid)
        basis, normal = _real_form(values, vectors)
        inverse = NormBall(np.asarray(np.linalg.inv(basis), np.float64), 0.0)
    except np.linalg.LinAlgError:
        return 0.0, np.inf
    if not np.all(np.isfinite(inverse.mid)):
        return 0.0, np.inf
    exact = NormBall(basis, 0.0)
    off = _norm(inverse @ exact + NormBall(-np.eye(len(basis)), 0.0))
    rest = _norm(inverse @ matrix @ exact + NormBall(-normal, 0.0))
    moduli = np.sort(np.abs(values))[::-1]
    largest = up(float(moduli[0]))
    if not off < 1:
        return 0.0, np.inf
    radius = up(up(rest + off * largest) / (1 - off))
    # Discs apart from all smaller ones hold as many eigenvalues of M as of L.
    gaps = np.flatnonzero(moduli[:-1] - moduli[1:] > 2 * up(radius) + 1e-14 * largest)
    group = int(gaps[0]) if gaps.size else len(moduli) - 1
    return max(float(moduli[group]) * (1 - 1e-14) - radius, 0.0), up(largest + radius)


def _norm(matrix: NormBall) -> float:
    return up(size(matrix.mid) + matrix.error)


def _real_form(values: NDArray, vectors: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real V and block-diagonal L with M V = V L: a pair a +- bi becomes [[a, b], [-b, a]], which is normal."""
    columns, normal, place = [], np.zeros((len(values), len(values))), 0
    for value, vector in zip(values, vectors.T, strict=True):
        if value.imag == 0:
            normal[place, place] = value.real
            columns.append(vector.real)
        elif value.imag > 0:
            a, b = value.real, value.imag
            normal[place : place + 2, place : place + 2] = [[a, b], [-b, a]]
            columns += [vector.real, vector.imag]
        place = len(columns)
    return np.stack(columns, axis=1), normal
