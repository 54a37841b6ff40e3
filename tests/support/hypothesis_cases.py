"""Random cases whose hypotheses are known exactly, most of them next to the edge."""

from fractions import Fraction

import numpy as np


def known_matrix(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    """Integers with a known spectrum, far from normal or defective: S T S^-1, T triangular, S of determinant 1."""
    diagonal = rng.integers(-3, 4, size)
    triangle = np.triu(rng.integers(-3, 4, (size, size)), 1) * (rng.uniform() > 0.3) + np.diag(diagonal)
    left = np.tril(rng.integers(-2, 3, (size, size)), -1) + np.eye(size, dtype=int)
    inverse = np.eye(size, dtype=int)
    for _ in range(size):
        inverse = np.eye(size, dtype=int) - (left - np.eye(size, dtype=int)) @ inverse
    return (left @ triangle @ inverse).astype(np.float64), float(np.max(np.abs(diagonal)))


def exact_sink(attn: np.ndarray, level: float) -> bool:
    columns = [[Fraction(x) for x in column] for column in attn.T.tolist()]
    return any(sum(column) > Fraction(level) * len(attn) for column in columns)


def edge_of_a_sink(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Columns whose mean is within a few units in the last place of the level, or equal to it."""
    size, level = int(rng.integers(2, 7)), float(rng.choice([0.25, 0.3, 0.5]))
    attn = rng.uniform(0, 1, (size, size))
    attn[:, 0] = level + (rng.uniform(-1, 1, size) * 1e-17 if rng.uniform() < 0.3 else 0)
    attn[-1, 0] += rng.integers(-2, 3) * 2.0**-54
    attn[:, 1:] *= 0.1
    return attn, level


def searched_radius(graph: np.ndarray) -> int:
    """Steps that the best token needs to reach all others, token by token; -1 where none does."""
    best = -1
    for root in range(len(graph)):
        reached, steps = {root}, 0
        while len(reached) < len(graph):
            more = {t for t in range(len(graph)) if any(graph[t, s] for s in reached)} | reached
            if more == reached:
                break
            reached, steps = more, steps + 1
        if len(reached) == len(graph) and (best < 0 or steps < best):
            best = steps
    return best


def random_graph(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(1, 6))
    return (rng.uniform(size=(size, size)) < rng.choice([0.15, 0.4])) | np.eye(size, dtype=bool)


def planted(rng: np.random.Generator) -> np.ndarray:
    """Tokens on the positive side of a random direction, some hardly."""
    width, count = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    direction = rng.standard_normal(width)
    tokens = rng.standard_normal((count, width)) * 10 ** rng.uniform(-3, 3, (count, 1))
    tokens *= np.sign(tokens @ direction)[:, None]
    return tokens


def vanishing(rng: np.random.Generator) -> np.ndarray:
    """Small integers, a positive combination of which is zero exactly, and some that stand anywhere."""
    width, count = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    tokens = rng.integers(-4, 5, (count, width)).astype(np.float64)
    last = -(rng.integers(1, 4, count).astype(np.float64) @ tokens)
    others = rng.integers(-4, 5, (int(rng.integers(0, 3)), width)).astype(np.float64)
    mixed = rng.permutation(np.concatenate([tokens, last[None], others]))
    return mixed * 2.0 ** rng.integers(-40, 40)
