"""What else gives the largest singular value of centred attention matrices: torch's routines and scipy's.

Each takes [h n n] and returns [h], the centring included. Used by spectra.py.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import svds


def centred(attn: np.ndarray) -> np.ndarray:
    return attn - attn.mean(axis=-2, keepdims=True)


def torch_svd(attn: np.ndarray) -> np.ndarray:
    return torch.linalg.svdvals(torch.from_numpy(centred(attn)))[..., 0].numpy()


def torch_gram(attn: np.ndarray) -> np.ndarray:
    """By the Gram matrix: fewer operations, half of the digits."""
    matrices = torch.from_numpy(centred(attn))
    return torch.linalg.eigvalsh(matrices.mT @ matrices)[..., -1].clamp(min=0).sqrt().numpy()


def scipy_svds(attn: np.ndarray) -> np.ndarray:
    """ARPACK, one matrix after the other."""
    start = np.asarray(np.random.default_rng(0).standard_normal(attn.shape[-1]), attn.dtype)
    return np.array([svds(one, k=1, v0=start, return_singular_vectors=False)[0] for one in centred(attn)])


PEERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "torch svdvals": torch_svd,
    "torch eigvalsh of the Gram matrix": torch_gram,
    "scipy svds": scipy_svds,
}
