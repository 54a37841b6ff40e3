"""Spectra that are hard to find the largest eigenvalue of."""

import numpy as np

SIZE = 40  # larger than the basis, so that restarts take part


SPECTRA = {
    "spread": lambda rng: rng.uniform(0, 1, SIZE),
    "graded": lambda rng: 10.0 ** -np.arange(SIZE) * 10 ** rng.uniform(-5, 5),
    "clustered": lambda rng: np.linspace(1, 1 + 1e-6, SIZE),
    "clustered top": lambda rng: np.r_[np.linspace(1, 1 + 1e-4, 5), rng.uniform(0, 0.9, SIZE - 5)],
    "degenerate top": lambda rng: np.r_[np.full(6, 2.0), rng.uniform(0, 1.9, SIZE - 6)],
    "few distinct": lambda rng: rng.choice([0.5, 1.0, 3.0], SIZE),
    "identity": lambda rng: np.ones(SIZE),
    "rank one": lambda rng: np.r_[10 ** rng.uniform(-8, 8), np.zeros(SIZE - 1)],
    "rank two": lambda rng: np.r_[3.0, 2.999, np.zeros(SIZE - 2)],
    "zero": lambda rng: np.zeros(SIZE),
}
