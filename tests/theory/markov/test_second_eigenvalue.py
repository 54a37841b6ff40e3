"""The bracket of the second eigenvalue, against LAPACK where it can be trusted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import (
    FAMILIES,
    TOKENS,
    centring,
    padded_on_both_sides,
    stochastic,
    structured,
    two_camps,
    window,
)
from support.statements import few_or_many_seeds, record

from jaxsmooth.theory import (
    causal_second_eigenvalue,
    chain_limit,
    ergodicity_coefficient,
    slem,
)

CASES = 1000
WIDE = 64
radius = jax.jit(slem)
tau = jax.jit(ergodicity_coefficient)


def check_bracket(seed: int) -> None:
    attn = structured(np.random.default_rng(seed), CASES)
    wide, mask = padded_on_both_sides(attn)
    found = radius(wide, mask)
    values, frame = np.linalg.eig(attn)
    # Eigenvalues of matrices that are not normal lose digits in LAPACK, a k-fold one all but one in k of them; those
    # of triangular ones are their diagonals.
    diagonal = np.sort(np.diagonal(attn, axis1=1, axis2=2), axis=1)[:, -2]
    triangular = np.all(np.triu(attn, 1) == 0, axis=(1, 2))
    second = np.where(triangular, diagonal, np.sort(np.abs(values), axis=1)[:, -2])
    trusted = triangular | (np.linalg.cond(frame) < 1e4)
    assert trusted.mean() > 0.7
    assert np.all(found.lower <= found.upper)
    assert np.all(found.lower[trusted] <= second[trusted] * (1 + 1e-9) + 1e-12)
    assert np.all(found.upper[trusted] >= second[trusted] * (1 - 1e-9) - 1e-12)
    record(second[trusted], np.asarray(found.upper)[trusted])
    # Both ends allow for all rounding, which a matrix far from normal magnifies.
    narrow = np.asarray(found.upper - found.lower) <= 1e-6
    assert narrow[trusted].mean() > 0.95
    # Up to rounding that a defective eigenvalue magnifies.
    assert np.all(found.upper <= np.asarray(tau(wide, mask)) * (1 + 1e-7) + 1e-7)


@few_or_many_seeds
def test_the_bracket_holds_the_second_eigenvalue_of_every_family(seeds):
    for seed in seeds:
        check_bracket(seed)


def test_the_second_eigenvalue_of_a_prescribed_spectrum():
    """Symmetric doubly stochastic with the eigenvalues wanted, negative and repeated ones too."""
    basis = np.linalg.qr(np.c_[np.ones(TOKENS), np.random.default_rng(1).standard_normal((TOKENS, TOKENS - 1))])[0]
    for spectrum in ([0.1, 0.1, 0.05, 0, -0.1], [0.02, 0, 0, 0, -0.15], [1e-9, 0, 0, 0, 0], [0.12] * 5):
        attn = basis * [1, *spectrum] @ basis.T
        assert attn.min() > 0
        found = radius(attn, np.ones(TOKENS, bool))
        exact = np.abs(spectrum).max()
        assert exact * (1 - 1e-6) - 1e-12 <= float(found.lower) <= exact + 1e-16
        # Rows of sum 1 leave 1e-9 but six digits.
        assert exact - 1e-16 <= float(found.upper) <= exact * (1 + 1e-6) + 1e-13


def test_the_second_eigenvalue_of_extremes():
    ones = np.ones(TOKENS, bool)
    assert float(radius(np.eye(TOKENS), ones).lower) == 1
    cycle = np.eye(TOKENS)[np.r_[1:TOKENS, 0]]
    assert [round(float(side), 6) for side in radius(cycle, ones)[:2]] == [1, 1]
    nilpotent = np.eye(TOKENS)[[0, 0, 1, 2, 3, 4]]
    assert float(radius(nilpotent, ones).upper) == 0
    assert float(radius(two_camps(TOKENS), ones).upper) == 0
    # 0, if 1/6 were a number of binary digits.
    assert 0 < float(radius(np.full((TOKENS, TOKENS), 1 / TOKENS), ones).upper) < 1e-13
    one = np.zeros((TOKENS, TOKENS))
    one[0, 0] = 1
    assert float(radius(one, np.arange(TOKENS) == 0).upper) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_eigenvalue_that_lapack_cannot_find(dtype):
    """Window 2: a Jordan block of 63. LAPACK says 0.785 of J A; the diagonal says 1/2."""
    attn = window(2, WIDE)
    assert np.abs(np.linalg.eigvals(centring(WIDE) @ attn)).max() > 0.7
    found = radius(attn.astype(dtype), np.ones(WIDE, bool))
    assert [float(side) for side in found] == [0.5, 0.5, 0]
    assert float(causal_second_eigenvalue(jnp.asarray(attn), jnp.ones(WIDE, bool))) == 0.5


def check_causal(seed: int, cases: int) -> None:
    """P10, with padding in front and behind: eigenvalues on the diagonal, and everything becomes token 1."""
    rng = np.random.default_rng(seed)
    attn = np.stack([FAMILIES["causal"](rng, TOKENS) for _ in range(cases)])
    wide, mask = padded_on_both_sides(attn)
    found = np.asarray(jax.jit(causal_second_eigenvalue)(wide, mask))
    np.testing.assert_array_equal(found, np.diagonal(attn, axis1=1, axis2=2)[:, 1:].max(axis=1))
    np.testing.assert_allclose(radius(wide, mask).upper, found, rtol=1e-14)
    limits = np.asarray(jax.jit(chain_limit)(wide, mask).matrix)[:, 1 : TOKENS + 1, 1 : TOKENS + 1]
    np.testing.assert_allclose(limits, np.tile(np.eye(TOKENS)[0], (cases, TOKENS, 1)), atol=1e-15)
    # det(A - z I) at every diagonal entry, by LAPACK's elimination.
    shifted = attn[:, None] - np.diagonal(attn, axis1=1, axis2=2)[:, :, None, None] * np.eye(TOKENS)
    assert np.abs(np.linalg.det(shifted)).max() < 1e-14
    record(np.abs(found), np.asarray(radius(wide, mask).upper))


@few_or_many_seeds
def test_the_causal_spectrum_is_the_diagonal(seeds):
    for seed in seeds:
        check_causal(seed, CASES)


def test_attention_to_later_tokens_has_no_causal_spectrum():
    full = stochastic(np.random.default_rng(2), TOKENS)
    assert np.isnan(causal_second_eigenvalue(jnp.asarray(full), jnp.ones(TOKENS, bool)))
