"""Attention with a residual and values, X -> X + A X W with A and W fixed: its spectrum, and whether tokens unify.

Vectorised, the step is I + A (x) W^T, whose eigenvalues are 1 + lambda_i mu_j. Written for the host: eigenvalues of
nonsymmetric matrices do not exist on every device.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError, arguments_checked

LARGEST_CONDITION = 1e7  # of eigenvectors: those of a double eigenvalue that has one only come out at 1e8 or so
Eigenvalues = NDArray[np.complexfloating]


class ResidualFate(NamedTuple):
    """The long-run behaviour of X -> X + A X W for generic X.

    Attributes:
      consensus: max_j |1 + mu_j|, growth per step of the part in consensus (lambda_1 = 1).
      rest: max over i >= 2 and j of |1 + lambda_i mu_j|, growth per step of the part outside it.
      tokens_unify: whether rest < consensus, so that d_M(X) / ||X|| -> 0, like (rest / consensus)^k.
      rank_collapses: whether all pairs (i, j) of largest |1 + lambda_i mu_j| have one i or one j in common, so that
        X / ||X|| tends to matrices of rank one: they then have one left or one right vector in common.
      separation: second-largest over largest of the moduli |1 + lambda_i mu_j|, conjugates counted as two.
      applicable: whether `rank_collapses` is known: it is not where these pairs have several i and several j and A or W
        is not diagonalisable, nor for no tokens, no features, or numbers that are not finite.
    """

    consensus: float
    rest: float
    tokens_unify: bool
    rank_collapses: bool
    separation: float
    applicable: bool


@arguments_checked
def residual_eigenvalues(attn: NDArray[np.floating], weight: NDArray[np.floating]) -> Eigenvalues:
    """Eigenvalues 1 + lambda_i mu_j of X -> X + A X W, from those of A and W.

    Args:
      attn: A, row-stochastic over real tokens only, [n, n].
      weight: W = sum of the heads' value and output kernels if they share A, [D, D].

    Returns:
      [n, D], complex; row 0 belongs to the eigenvalue of A nearest to 1, that of consensus.

    Raises:
      ShapeError: a matrix that is not square.

    >>> import numpy as np
    >>> residual_eigenvalues(np.full((2, 2), 0.5), np.diag([1.0, -2.0])).real.round(4).tolist()
    [[2.0, -1.0], [1.0, 1.0]]

    References: after Dovonon et al. (2024), arXiv 2401.04301.
    """
    mixing = np.linalg.eigvals(_square("attn", attn))
    mixing = mixing[np.argsort(np.abs(mixing - 1), kind="stable")]
    values = np.linalg.eigvals(_square("weight", weight))
    return 1 + np.outer(mixing, values).astype(complex)


@arguments_checked
def residual_fate(attn: NDArray[np.floating], weight: NDArray[np.floating], *, tolerance: float = 1e-9) -> ResidualFate:
    """Whether X <- X + A X W, repeated, makes all tokens the same, and whether it leaves rank one.

    The two are different: if every mu lies in (-2, 0) and every lambda in [0, 1], then the smallest lambda dominates,
    and X tends to rank one with d_M(X) / ||X|| away from 0: rank collapse without token uniformity. For generic X; what
    is not diagonalisable, see `ResidualFate.applicable`.

    Args:
      attn: A, row-stochastic over real tokens only, [n, n].
      weight: W, [D, D].
      tolerance: relative difference below which two moduli count as equal.

    Returns:
      A `ResidualFate`.

    Raises:
      ShapeError: a matrix that is not square.

    >>> import numpy as np
    >>> attn = np.array([[0.9, 0.1], [0.1, 0.9]])
    >>> up, down = residual_fate(attn, np.diag([0.5, 0.2])), residual_fate(attn, np.diag([-0.5, -0.2]))
    >>> up.tokens_unify, up.rank_collapses, down.tokens_unify, down.rank_collapses
    (True, True, False, True)

    References: after Dovonon et al. (2024), arXiv 2401.04301.
    """
    attn, weight = _square("attn", attn), _square("weight", weight)
    if not (attn.size and weight.size and np.isfinite(attn).all() and np.isfinite(weight).all()):
        return ResidualFate(np.nan, np.nan, False, False, np.nan, False)
    moduli = np.abs(residual_eigenvalues(attn, weight))
    consensus, rest = float(moduli[0].max()), float(moduli[1:].max(initial=0.0))
    ordered = np.sort(moduli, axis=None)[::-1]
    second = float(ordered[1]) if ordered.size > 1 else 0.0
    tokens, features = np.nonzero(moduli >= ordered[0] * (1 - tolerance))
    alone = bool(np.ptp(tokens) == 0 or np.ptp(features) == 0)
    return ResidualFate(
        consensus=consensus,
        rest=rest,
        tokens_unify=rest < consensus * (1 - tolerance),
        rank_collapses=alone and bool(ordered[0] > 0),
        separation=second / float(ordered[0]) if ordered[0] else 1.0,
        applicable=alone or (_diagonalisable(attn) and _diagonalisable(weight)),
    )


def _square(name: str, given: NDArray[np.floating]) -> NDArray[np.float64]:
    matrix = np.asarray(given, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"{name} must be a square matrix; got shape {matrix.shape}.")
    return matrix


def _diagonalisable(matrix: NDArray[np.floating]) -> bool:
    """As far as float64 tells: its computed eigenvectors are independent."""
    return bool(np.linalg.cond(np.linalg.eig(matrix)[1]) < LARGEST_CONDITION)
