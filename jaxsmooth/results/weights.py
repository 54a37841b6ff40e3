"""Spectra of a model's weights, which no text enters."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .brief import Brief

LARGEST = 5
"""So many singular values of each matrix are kept."""

MATRICES = {
    "query_key": "W_Q W_Kᵀ",
    "value_output": "W_V W_O",
    "up": "MLP up",
    "gate": "MLP gate",
    "down": "MLP down",
}
"""The matrices of a block by name, and how a table calls them; the first two are sums over the heads, D x D."""


@dataclasses.dataclass(frozen=True, repr=False)
class MatrixSpectra(Brief):
    """One matrix of every block.

    Attributes:
      singular_values: the largest `LARGEST`, [L 5]; NaN where a matrix has fewer.
      stable_rank: ||W||_F^2 / ||W||_2^2, [L]; NaN for W = 0.
      alpha: exponent of the power law fitted to the tail of the eigenvalues of W W^T, see
        `theory.clauset2009_power_law`, [L].
      error: its standard error if eigenvalues were independent, [L].
      distance: the Kolmogorov-Smirnov distance of the fit, [L].
      tail: how many eigenvalues the fit is to, [L].
      count: how many there are, [L].
    """

    singular_values: NDArray[np.float64]
    stable_rank: NDArray[np.float64]
    alpha: NDArray[np.float64]
    error: NDArray[np.float64]
    distance: NDArray[np.float64]
    tail: NDArray[np.int64]
    count: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, repr=False)
class WeightSpectra(Brief):
    """The spectra of every block's weights.

    Attributes:
      matrices: name of `MATRICES` -> its spectra; without `gate` where the MLP has none.
      eigenvalue: of F = sum_h W_V^h W_O^h the one of largest modulus, [L].
      runner_up: the largest modulus of F's other eigenvalues, its conjugate left out, [L].
      chance: what `Diagnosis.principal_alignment` would be of tokens in random directions, [L].
    """

    matrices: dict[str, MatrixSpectra]
    eigenvalue: NDArray[np.complex128]
    runner_up: NDArray[np.float64]
    chance: NDArray[np.float64]
