"""The bounds of the second eigenvalue hold for the exact numbers, in both precisions, against Arb."""

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.csgraph
import scipy.special
from flint import acb_mat, arb, arb_mat, ctx
from support.matrices import closed_classes, doubly_stochastic, one_hot_rows, stochastic, window

from jaxsmooth.theory import chain_limit, subdominant

SIZE = 16
DTYPES = [np.float32, np.float64]


def logits(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, size))


def anticausal(size: int) -> np.ndarray:
    """Equal weights on a token and the next; the last sees itself alone."""
    attn = 0.5 * (np.eye(size) + np.eye(size, k=1))
    attn[-1, -1] = 1
    return attn


def drift(size: int) -> np.ndarray:
    """0.9 back, 0.05 stay, 0.05 forward: irreducible, and far from normal."""
    attn = 0.9 * np.eye(size, k=-1) + 0.05 * np.eye(size) + 0.05 * np.eye(size, k=1)
    attn[0, 0], attn[-1, -1] = 0.95, 0.1
    return attn


def absorbed_drift(size: int) -> np.ndarray:
    """The same that ends in its first token: its transient tokens reach each other."""
    attn = drift(size)
    attn[0] = np.eye(size)[0]
    return attn


def cyclic_shifts(size: int) -> np.ndarray:
    """A permutation of period `size`, left with a probability: eigenvalues on a circle."""
    return 0.875 * np.eye(size)[np.r_[1:size, 0]] + 0.125 * np.eye(size)[0]


def defective(size: int) -> np.ndarray:
    """One closed class whose second eigenvalue 1/2 has a Jordan block: the anti-causal window, mixed with one row."""
    return 0.5 * anticausal(size) + 0.5 / size


def several_classes(size: int) -> np.ndarray:
    """Two classes, a periodic one, and transient tokens on both sides."""
    rng, part = np.random.default_rng(7), size // 4
    inner = [stochastic(rng, part), drift(part), np.eye(part)[np.r_[1:part, 0]]]
    attn = scipy.linalg.block_diag(*inner, np.zeros((part, part)))
    attn[-part:] = scipy.special.softmax(rng.standard_normal((part, size)), axis=1)
    return attn[np.ix_(order := rng.permutation(size), order)]


FAMILIES = {
    "anti-causal window": anticausal,
    "drift": drift,
    "drift that ends": absorbed_drift,
    "shifts": cyclic_shifts,
    "defective": defective,
    "several classes": several_classes,
    "window": functools.partial(window, 3),
    "softmax": lambda size: stochastic(np.random.default_rng(1), size),
    "nearly uniform": lambda size: scipy.special.softmax(0.01 * logits(2, size), axis=1),
    "sharp": lambda size: scipy.special.softmax(9 * logits(3, size), axis=1),
    "doubly stochastic": lambda size: doubly_stochastic(np.random.default_rng(4), size),
    "one-hot": lambda size: one_hot_rows(np.random.default_rng(5), size),
    "closed classes": lambda size: closed_classes(np.random.default_rng(6), size),
    "uniform": lambda size: np.full((size, size), 1 / size),
}


# As A = M / 2 + 1 u^T / 2, its other eigenvalues are half of M's.
KNOWN = {"defective": arb(0.25)}


def exact_radius(attn: np.ndarray, bits: int) -> arb:
    """Of A less its limit, enclosed: the moduli of the eigenvalues of its blocks, less one 1 for each closed one.

    Rows of closed classes are completed on the diagonal, to sum to exactly 1. Eigenvalues of one block that is
    triangular would be as many as they are equal; scipy finds the blocks.
    """
    ctx.prec = bits
    count, labels = scipy.sparse.csgraph.connected_components(attn > 0, connection="strong")
    largest = arb(0)
    for members in (np.flatnonzero(labels == k) for k in range(count)):
        closed = not (attn[np.ix_(members, labels != labels[members[0]])] > 0).any()
        rows = [[arb(float(x)) for x in row] for row in attn[np.ix_(members, members)]]
        for i, row in enumerate(rows if closed else ()):
            row[i] = arb(1) - sum((x for j, x in enumerate(row) if j != i), arb(0))
        values = [rows[0][0]] if len(rows) == 1 else acb_mat(arb_mat(rows)).eig(multiple=True)
        moduli = sorted((abs(value) for value in values), key=lambda modulus: -float(modulus.mid()))[closed:]
        largest = max([largest, *moduli], key=lambda modulus: float(modulus.mid()))
    return largest


radius = jax.jit(lambda attn, mask: subdominant(attn, mask, chain_limit(attn, mask)))


@functools.cache
def bounds(size: int, dtype: type) -> dict[str, tuple[float, float, float]]:
    """Of every family, from one program."""
    attn = np.stack([make(size) for make in FAMILIES.values()]).astype(dtype)
    found = [np.asarray(side, np.float64).tolist() for side in radius(attn, np.ones(attn.shape[:2], bool))]
    return dict(zip(FAMILIES, zip(*found, strict=True), strict=True))


def check(family: str, size: int, dtype: type, bits: int) -> tuple[float, float]:
    """The upper bound and what it bounds."""
    low, high, rounding = bounds(size, dtype)[family]
    exact = KNOWN.get(family) or exact_radius(FAMILIES[family](size).astype(dtype), bits)
    assert arb(low) <= exact.upper()
    assert arb(high) >= exact.lower()
    assert 0 <= rounding <= 1
    return high, float(exact.mid())


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bounds_hold_for_the_exact_matrix(family, dtype):
    """And they are of use, but where numbers of this dtype do not tell an eigenvalue that is fifteenfold."""
    high, exact = check(family, SIZE, dtype, 600)
    slack = {np.float32: 0.05, np.float64: 1e-3}[dtype] if family != "defective" else 1
    assert high <= exact * (1 + slack) + 20 * SIZE * np.finfo(dtype).eps


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("size", [5, 24, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bounds_hold_at_other_sizes(family, size, dtype):
    check(family, size, dtype, 600 + 20 * size)


def large(dtype: type) -> np.ndarray:
    return np.stack([anticausal(64), drift(64)]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.long)])
def test_windows_and_drifts_over_64_tokens(dtype):
    """0.05 + 2 (0.9 0.05)^(1/2) cos(pi / n), of a reversible chain whose law spans 1e79; LAPACK says 0.54 or more."""
    exact = 0.05 + 2 * 0.045**0.5 * np.cos(np.pi / 64)
    assert np.sort(np.abs(np.linalg.eigvals(drift(64))))[-2] > 0.5
    lower, upper, _ = radius(large(dtype), np.ones((2, 64), bool))
    assert [float(lower[0]), float(upper[0])] == [0.5, 0.5]
    # Other numbers have another eigenvalue, by their relative error.
    near = 4 * np.finfo(dtype).eps
    assert float(lower[1]) <= exact * (1 + near)
    assert exact * (1 - near) <= float(upper[1]) <= exact * {np.float32: 1.01, np.float64: 1 + 1e-8}[dtype]


def padded(*matrices: list) -> tuple[np.ndarray, np.ndarray]:
    """Of the shape that the program has."""
    attn, mask = np.zeros((len(FAMILIES), SIZE, SIZE)), np.zeros((len(FAMILIES), SIZE), bool)
    for k, matrix in enumerate(matrices):
        attn[k, : len(matrix), : len(matrix)] = matrix
        mask[k, : len(matrix)] = True
    return attn, mask


def test_what_is_no_attention_has_no_bounds():
    """Negative weights have no pattern of zeros that says anything."""
    odd = [[1.5, -0.5], [0.5, 0.5]], [[np.nan, 1], [0.5, 0.5]]
    lower, upper, _ = radius(*padded(*odd, [[0.75, 0.25], [0.5, 0.5]]))
    assert (lower[:2].tolist(), upper[:2].tolist()) == ([0, 0], [np.inf, np.inf])
    assert [float(lower[2]), float(upper[2])] == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_tokens_that_reach_each_other_in_one_order_only_have_their_diagonal(dtype):
    """The window ahead, with padding; one token; no token."""
    attn, mask = padded(anticausal(6), [[1.0]], [])
    found = [side[:3].tolist() for side in radius(attn.astype(dtype), mask)]
    assert found == [[0.5, 0, 0], [0.5, 0, 0], [0, 0, 0]]
    assert bounds(SIZE, dtype)["anti-causal window"] == (0.5, 0.5, 0)
