"""Hypotheses about attention itself, decided exactly: sinks, and masks with a root. Host only."""

import math

import numpy as np
from numpy.typing import NDArray

from ...errors import arguments_checked
from ...linalg.intervals import total
from .finite_matrix import finite_matrix

SINK_LEVEL = 0.3
"""Mean weight from which a key is called a sink: that of Gu et al. (2024), arXiv 2410.10781."""


@arguments_checked
def has_sink(attn: NDArray[np.float64], level: float = SINK_LEVEL) -> bool:
    """Whether some key gets more than `level` of the queries' attention on average; exact for the numbers given.

    Of n tokens one always gets at least 1/n: with n at most 1/`level` the question says nothing.

    Args:
      attn: one head's attention over real tokens, [T S], numpy.
      level: exact as given.

    Raises:
      ShapeError: no matrix, or numbers that are not finite.

    >>> has_sink(np.array([[0.9, 0.1], [0.9, 0.1]])), has_sink(np.full((4, 4), 0.25), 0.25)
    (True, False)

    References: Gu et al. (2024), arXiv 2410.10781; Xiao et al. (2023), arXiv 2309.17453.
    """
    attn = finite_matrix("attn", attn)
    count = len(attn)
    sums = total(attn, axis=0)
    # A product of two floats is not exact: widened, and what it leaves open is summed exactly below.
    bar = level * count
    if np.any(sums.lower > bar * (1 + 1e-15)):
        return True
    # fsum rounds the exact sum once, so its sign is that of the sum.
    near = np.flatnonzero(sums.upper >= bar * (1 - 1e-15))
    return any(math.fsum([*attn[:, key].tolist(), *[-level] * count]) > 0 for key in near)


@arguments_checked
def rooted_radius(graph: NDArray[np.bool_]) -> int:
    """Radius of a mask, as `theory.wu2024_radius`, of one sentence without padding.

    Args:
      graph: True where query t attends to key s, [T S], numpy.

    Returns:
      The fewest layers after which some token has reached all; 0 for one token, -1 where none ever does.

    >>> rooted_radius(np.ones((3, 3), bool)), rooted_radius(np.tri(3, dtype=bool)), rooted_radius(np.eye(2, dtype=bool))
    (1, 1, -1)
    """
    # On the host: lengths differ from sentence to sentence, and the other is compiled anew for each.
    step, reached, radius = np.asarray(graph, np.float32), np.eye(len(graph), dtype=bool), 0
    while not np.any(np.all(reached, axis=0)):
        further = reached | (step @ reached.astype(np.float32) > 0)
        if np.array_equal(further, reached):
            return -1
        reached, radius = further, radius + 1
    return radius
