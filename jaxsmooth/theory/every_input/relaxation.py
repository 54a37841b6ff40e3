"""The quadratic form whose largest eigenvalue bounds std_attn * std_mlp, for any multipliers.

Theorem 2 of docs/every-input.md. Here it is evaluated and differentiated in plain floating point, to find good
multipliers; `certificate` evaluates it once more, for the ones found, with every rounding accounted for.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import quiet
from .reachable import Reachable

Floats = NDArray[Any]  # float32 in a search, float64 in a certificate


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """What theorem 2 leaves free. Any values give a valid bound; `side` None is the whole set, otherwise half of it.

    Attributes:
      curve: log tau of every unit, the multiplier of a (z - a) >= 0, [F].
      shares: logarithms, up to a constant, of nu: of the residual, every head, the mean, and the std, [K + 1].
      sphere: omega, the multiplier of |u|^2 / D = std^2 - eps.
      low: kappa of every unit, of (a + floor std) l >= 0, at least 0, [F].
      high: kappa' of every unit, of (a - z + floor std) l >= 0, at least 0, [F].
      side: e: only inputs with l = e u >= 0 are looked at, [D].
    """

    curve: Floats
    shares: Floats
    sphere: float
    low: Floats
    high: Floats
    side: Floats | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """A `Reachable` as plain arrays, and an upper bound of std_attn."""

    grams: Floats
    skip: Floats
    up: Floats
    shift: Floats
    down: Floats
    offset: Floats
    floor: float
    largest_std: float

    @staticmethod
    @quiet
    def of(found: Reachable, largest_std: float, dtype: type[np.floating]) -> "Form":
        """In the precision of the search."""
        arrays = {name: getattr(found, name).mid.astype(dtype) for name in ("skip", "up", "shift", "down", "offset")}
        # Not rounded: that could make their sum indefinite.
        grams = np.stack([gram.mid for gram in found.grams])
        return Form(grams, **arrays, floor=found.floor, largest_std=largest_std)


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """The multipliers in the form's coordinates: x = (u, std) = basis x~."""

    tau: Floats
    nu: Floats
    basis: Floats
    pre: Floats  # z = pre x~, [F D+1]
    side: Floats  # l = side x~, [D+1]


def start(form: Form) -> Multipliers:
    """Multipliers that balance every unit's way in with its way out."""
    units = form.up.shape[1]
    inward = np.linalg.norm(form.up, axis=0) * np.sqrt(len(form.skip)) * form.largest_std
    outward = np.linalg.norm(form.down, axis=1)
    # An MLP that puts nothing out is best left alone: next to no weight on its units.
    outward = _not_tiny(outward) if outward.any() else np.full_like(outward, 1e-12)
    curve = np.log(2 * outward / _not_tiny(inward))
    traces = _not_tiny(np.einsum("kdd->k", form.grams))
    shares = 0.9 * np.sqrt(traces) / np.sqrt(traces).sum()
    none = np.zeros(units, curve.dtype)
    return Multipliers(curve, np.log(np.append(shares, 0.1)), 0.0, none, none)


def _not_tiny(sizes: Floats) -> Floats:
    """Raised to a thousandth of the largest; ones if all are zero."""
    return np.maximum(sizes, 1e-3 * sizes.max()) if sizes.max() > 0 else np.ones_like(sizes)


def shares_of(multipliers: Multipliers) -> Floats:
    """nu, positive, of sum 1 up to rounding."""
    weights = np.exp(multipliers.shares - multipliers.shares.max())
    return weights / weights.sum()


def matrix(form: Form, multipliers: Multipliers) -> Floats:
    """S, [2 D + 1, 2 D + 1]: std_attn std_mlp sqrt(D) is at most its largest eigenvalue, up to eps and rounding."""
    return _matrix(form, multipliers, _scaled(form, multipliers))


def slopes(form: Form, multipliers: Multipliers, vectors: Floats, weights: Floats, values: Floats) -> Multipliers:
    """Derivatives of sum_r weights_r lambda_r: in each field that of the field.

    Args:
      form: the form.
      multipliers: where.
      vectors: eigenvectors of S, [2 D + 1, R].
      weights: of sum 1, [R].
      values: their eigenvalues, [R].
    """
    at, width = _scaled(form, multipliers), len(form.skip)
    outer, inner = vectors[:width], vectors[width:]
    x = at.basis @ inner
    z, ell = at.pre @ inner, at.side @ inner
    tau = at.tau[:, None]
    a = (form.down @ outer + z * (tau / 2) + (multipliers.low + multipliers.high)[:, None] * ell) / tau
    std = form.floor * x[-1]
    half = np.linalg.solve(at.basis[:-1, :-1].T, inner[:-1])
    growth = np.append(
        np.einsum("dr,kde,er->kr", half, form.grams, half, optimize=True) @ (weights * values) / at.nu[:-1] ** 2,
        (x[-1] ** 2 @ (weights * values)) / form.largest_std**2,
    )
    return Multipliers(
        curve=(a * (z - a)) @ weights * at.tau,
        shares=at.nu * (at.nu @ growth - growth),
        sphere=float((x[-1] ** 2 - _centred_square(x[:-1])) @ weights),
        low=2 * ((a + std) * ell) @ weights,
        high=2 * ((a - z + std) * ell) @ weights,
    )


def _scaled(form: Form, multipliers: Multipliers) -> _Scaled:
    nu, width = shares_of(multipliers), len(form.skip)
    basis = np.zeros((width + 1, width + 1), form.up.dtype)
    basis[:-1, :-1] = root(np.einsum("kde,k->de", form.grams, 1 / nu[:-1]))
    basis[-1, -1] = form.largest_std / np.sqrt(nu[-1])
    pre = np.concatenate([form.up.T, form.shift.T], axis=1) @ basis
    side = np.zeros(width + 1, form.up.dtype)
    if multipliers.side is not None:
        side = np.append(multipliers.side, 0).astype(form.up.dtype) @ basis
    return _Scaled(np.exp(multipliers.curve), nu, basis, pre, side)


def root(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """R lower triangular with R R^T next to the matrix plus a little; the little makes it regular."""
    bump = 1e-9 * np.trace(gram) / len(gram)
    return np.linalg.cholesky((gram + gram.T) / 2 + bump * np.eye(len(gram)))


def _matrix(form: Form, multipliers: Multipliers, at: _Scaled) -> Floats:
    width = len(form.skip)
    both = (multipliers.low + multipliers.high).astype(at.pre.dtype)
    halves = 1 / np.sqrt(at.tau)[:, None]
    units = np.concatenate(
        [form.down * halves, (at.pre * (at.tau / 2)[:, None] + both[:, None] * at.side) * halves], axis=1
    )
    found = units.T @ units
    found[:width, width:] += np.concatenate([form.skip.T, form.offset.T], axis=1) @ at.basis
    found[width:, :width] = found[:width, width:].T
    centred = at.basis[:-1, :-1] - at.basis[:-1, :-1].mean(axis=0)
    own = found[width:, width:]
    own[:-1, :-1] -= (multipliers.sphere / width) * (centred.T @ centred)
    own[-1, -1] += multipliers.sphere * at.basis[-1, -1] ** 2
    linear = -multipliers.high.astype(at.pre.dtype) @ at.pre
    linear[-1] += form.floor * both.sum() * at.basis[-1, -1]
    own += np.outer(linear, at.side) + np.outer(at.side, linear)
    return found


def _centred_square(u: Floats) -> Floats:
    return np.mean((u - u.mean(axis=0)) ** 2, axis=0)
