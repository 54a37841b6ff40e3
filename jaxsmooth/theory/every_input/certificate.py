"""Theorem 2 of docs/every-input.md with every rounding accounted for: float64, on the host."""

import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import Interval, quiet, sum_of
from ...linalg.norm_ball import NormBall, largest_eigenvalue, size, up
from .reachable import Reachable, exact, scaled, transposed
from .relaxation import Multipliers, shares_of

BUMPS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-4)


@quiet
def largest_std(found: Reachable, shares: NDArray[np.float64]) -> float:
    """At least every std_attn: (eps + largest eigenvalue of (sum_k B_k^T B_k / nu_k) (sum_k nu_k) / D)^(1/2).

    Args:
      found: the block.
      shares: nu of the residual, every head and the mean, positive, [K].
    """
    try:
        value = largest_eigenvalue(_weighted(found, shares))
    except (ValueError, np.linalg.LinAlgError):
        return np.inf
    return up(np.sqrt(up(found.eps + up(value * _total(shares)) / found.width)))


@quiet
def product_bound(found: Reachable, multipliers: Multipliers, std: float) -> float:
    """At least every std_attn * std_mlp of a token on the multipliers' side; infinite where rounding proves nothing.

    Args:
      found: the block.
      multipliers: any; exact as they are.
      std: at least every std_attn.
    """
    shares = shares_of(multipliers).astype(np.float64)
    basis = _basis(found, shares[:-1])
    if basis is None:
        return np.inf
    last = float(std / np.sqrt(shares[-1]))
    total = up(_total(shares[:-1]) + up(up(std / last) ** 2))
    form = _form(found, multipliers, basis, last)
    try:
        estimate = float(np.linalg.eigvalsh(form.mid)[-1])
        value = largest_eigenvalue(form, estimate=max(estimate, np.finfo(np.float64).tiny))
    except (ValueError, np.linalg.LinAlgError):
        return np.inf
    length = up(up(value * up(1 + total) + up(abs(multipliers.sphere) * found.eps)) / 2)
    bound = up(np.sqrt(up(up(length**2) / found.width + up(found.eps * up(std**2)))))
    return bound if np.isfinite(bound) else np.inf


def _form(found: Reachable, multipliers: Multipliers, basis: NDArray[np.float64], last: float) -> NormBall:
    """S of theorem 2 in the coordinates u = basis u~, std = last std~."""
    width = found.width
    pre = _beside(transposed(found.up) @ exact(basis), scaled(transposed(found.shift), last))
    side = np.zeros((1, width)) if multipliers.side is None else multipliers.side.astype(np.float64)[None]
    ell = _beside(exact(side) @ exact(basis), exact(np.zeros((1, 1))))
    low, high = (np.maximum(part, 0).astype(np.float64)[:, None] for part in (multipliers.low, multipliers.high))
    root = np.exp(-0.5 * multipliers.curve.astype(np.float64))  # any positive number: tau is its inverse square
    cut = exact(low) + exact(high)
    units = _beside(_rows(found.down, root), _rows(pre, 0.5 / root) + _rows(cut @ ell, root))
    square = transposed(units) @ units
    cross = _beside(transposed(found.skip) @ exact(basis), scaled(transposed(found.offset), last))
    own = _own(found, multipliers, basis, last) + _symmetric(_linear(found, pre, low, high, last), ell)
    return square + _blocks(cross, own)


def _own(found: Reachable, multipliers: Multipliers, basis: NDArray[np.float64], last: float) -> NormBall:
    """-omega (|C u|^2 / D - std^2)."""
    width = found.width
    means = scaled(exact(np.ones((1, width))) @ exact(basis), -1.0 / width)
    centred = exact(basis) + exact(np.ones((width, 1))) @ means
    square = scaled(transposed(centred) @ centred, -multipliers.sphere / width)
    corner = multipliers.sphere * last * last
    mid = np.zeros((width + 1, width + 1))
    mid[:-1, :-1], mid[-1, -1] = square.mid, corner
    return NormBall(mid, up(square.error + up(2.0**-50 * abs(corner)) + 2.0**-50 * size(square.mid)))


def _linear(
    found: Reachable, pre: NormBall, low: NDArray[np.float64], high: NDArray[np.float64], last: float
) -> NormBall:
    """floor (sum_k kappa_k + kappa'_k) std - sum_k kappa'_k z_k, a row."""
    floor = np.zeros((1, found.width + 1))
    floor[0, -1] = found.floor * last * float(low.sum() + high.sum())
    return scaled(exact(high.T) @ pre, -1.0) + NormBall(floor, up(2.0**-50 * (len(low) + 8) * floor[0, -1]))


def _basis(found: Reachable, shares: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """R with R R^T >= sum_k B_k^T B_k / nu_k, proved; None where no bump is enough."""
    gram = _weighted(found, shares)
    middle = (gram.mid + gram.mid.T) / 2
    for bump in BUMPS:
        raise_by = bump * float(np.trace(middle)) / len(middle)
        raised = exact(middle) + NormBall(raise_by * np.eye(len(middle)), 2.0**-50 * len(middle) * raise_by)
        try:
            basis: NDArray[np.float64] = np.linalg.cholesky(raised.mid).astype(np.float64)
        except np.linalg.LinAlgError:
            continue
        off = exact(basis) @ exact(np.ascontiguousarray(basis.T)) + exact(-raised.mid)
        halved = 2.0**-50 * size(middle)
        if up(size(off.mid) + off.error + raised.error + gram.error + halved) <= raise_by:
            return basis
    return None


def _weighted(found: Reachable, shares: NDArray[np.float64]) -> NormBall:
    total = scaled(found.grams[0], float(1 / shares[0]))
    for gram, share in zip(found.grams[1:], shares[1:], strict=True):
        total = total + scaled(gram, float(1 / share))
    return total


def _total(shares: NDArray[np.float64]) -> float:
    return float(sum_of(Interval.exact(shares)).upper)


def _rows(ball: NormBall, factors: NDArray[np.float64]) -> NormBall:
    """Every row times a number, which may be rounded once itself: `columns` has room for eight roundings."""
    return transposed(transposed(ball).columns(factors))


def _beside(left: NormBall, right: NormBall) -> NormBall:
    return NormBall(np.concatenate([left.mid, right.mid], axis=1), up(left.error + right.error))


def _symmetric(left: NormBall, right: NormBall) -> NormBall:
    """l^T r + r^T l of two rows."""
    return transposed(left) @ right + transposed(right) @ left


def _blocks(cross: NormBall, own: NormBall) -> NormBall:
    width = len(cross.mid)
    mid = np.zeros((2 * width + 1, 2 * width + 1))
    mid[:width, width:], mid[width:, :width], mid[width:, width:] = cross.mid, cross.mid.T, own.mid
    return NormBall(mid, up(2 * cross.error + own.error))
