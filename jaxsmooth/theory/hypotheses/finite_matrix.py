"""What a proof about given numbers starts from. Host only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError


def finite_matrix(name: str, given: Any) -> NDArray[np.float64]:
    """The matrix in float64.

    Args:
      name: what the caller calls it.
      given: what came.

    Raises:
      ShapeError: no matrix of numbers, or some that are not finite.

    >>> finite_matrix("hidden", [[1, 2]])
    array([[1., 2.]])
    """
    try:
        matrix = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be a matrix of numbers; got {type(given).__name__}: {error}.") from error
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        what = f"shape {matrix.shape}" if matrix.ndim != 2 else "some that are NaN or infinite"
        raise ShapeError(f"{name} must be a matrix of finite numbers; got {what}. Of nothing else is anything proved.")
    return matrix
