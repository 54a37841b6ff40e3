"""Block Lanczos with lanes that take turns, and the starts of the block operator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blocks import EVERY, random_state
from support.matrices import symmetric

from jaxsmooth.linalg.block_lanczos import block_lanczos
from jaxsmooth.theory.block.ladder import TOLERANCE as STOP
from jaxsmooth.theory.block.ladder_starts import leading_features

SEED = st.integers(0, 2**32 - 1)
SIZE = 40
TOLERANCE = 1e-9


@functools.partial(jax.jit, static_argnames="lanes")
def find(matrices, starts, lanes=3):
    options = {"tolerance": TOLERANCE, "lanes": lanes}
    return block_lanczos(lambda matrix, v: matrix @ v, matrices, starts, **options)


def operators(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    spectra = [
        rng.uniform(0, 1, SIZE),
        10.0 ** -np.arange(SIZE) * 10 ** rng.uniform(-5, 5),
        np.r_[np.full(6, 2.0), rng.uniform(0, 1.9, SIZE - 6)],
        rng.choice([0.5, 1.0, 3.0], SIZE),
        np.ones(SIZE),
        np.r_[3.0, np.zeros(SIZE - 1)],
        np.zeros(SIZE),
        np.r_[1.0, 0.98, rng.uniform(0, 0.9, SIZE - 2)],
    ]
    return np.stack([symmetric(rng, s) for s in spectra]), rng.standard_normal((len(spectra), 2, SIZE))


@settings(max_examples=30)
@given(seed=SEED)
def test_every_operator_gets_its_own_largest_eigenvalue(seed):
    matrices, starts = operators(np.random.default_rng(seed))
    exact = np.linalg.eigvalsh(matrices)[:, -1]
    found = find(matrices, starts)
    np.testing.assert_allclose(found.value, exact, rtol=TOLERANCE, atol=1e-14)
    assert np.all(found.value <= exact * (1 + 1e-14) + 1e-15)
    assert np.all(found.residual <= 5 * TOLERANCE * np.asarray(found.value))


@given(seed=SEED)
@settings(max_examples=10)
def test_neighbours_and_lanes_change_nothing(seed):
    rng = np.random.default_rng(seed)
    matrices, starts = operators(rng)
    order = rng.permutation(len(matrices))
    found, shuffled, wide = find(matrices, starts), find(matrices[order], starts[order]), find(matrices, starts, 8)
    np.testing.assert_array_equal(found.steps[order], shuffled.steps)
    np.testing.assert_allclose(found.value[order], shuffled.value, rtol=1e-13, atol=1e-14)
    # Another number of lanes is another program, which rounds otherwise and may stop one cycle sooner.
    np.testing.assert_allclose(found.value, wide.value, rtol=TOLERANCE, atol=1e-14)


def test_one_start_misses_what_a_pair_finds():
    """A start without the top eigenvector ends at the second, its residual as good as any; with another it does not."""
    spectrum = np.r_[1.0, 0.9, np.linspace(0, 0.5, SIZE - 2)]
    matrix = np.diag(spectrum)[None]
    blind = np.ones((1, 1, SIZE)) * np.r_[0.0, 30.0, np.ones(SIZE - 2)]
    seeing = np.random.default_rng(0).standard_normal((1, 1, SIZE))
    alone = find(matrix, np.concatenate([blind, 0 * blind], axis=1))
    assert float(alone.value[0]) == pytest.approx(0.9, rel=1e-12)
    assert float(alone.residual[0]) <= 5 * TOLERANCE
    for pair in ([blind, seeing], [seeing, blind]):
        assert float(find(matrix, np.concatenate(pair, axis=1)).value[0]) == pytest.approx(1, rel=1e-12)


def test_dependent_and_zero_starts():
    matrix = np.diag(np.linspace(0, 1, SIZE))[None]
    start = np.random.default_rng(1).standard_normal((1, 1, SIZE))
    for second in (2 * start, 0 * start):
        assert float(find(matrix, np.concatenate([start, second], axis=1)).value[0]) == pytest.approx(1, rel=1e-9)
    assert float(find(matrix, np.zeros((1, 2, SIZE))).value[0]) == 0


def test_the_step_limit_ends_the_search():
    matrices, starts = operators(np.random.default_rng(0))
    limited = jax.jit(lambda m, s: block_lanczos(lambda a, v: a @ v, m, s, tolerance=0.0, lanes=2, max_steps=16))(
        matrices, starts
    )
    assert np.all(np.asarray(limited.steps) <= 16)
    assert np.all(limited.value <= np.linalg.eigvalsh(matrices)[:, -1] * (1 + 1e-14) + 1e-15)


def test_leading_features_carry_most():
    weights, _ = random_state(np.random.default_rng(0))
    narrow = np.asarray(jax.jit(functools.partial(leading_features, count=2))(weights))
    np.testing.assert_allclose(narrow.T @ narrow, np.eye(2), atol=1e-12)
    centred = np.asarray(weights.output) - np.asarray(weights.output).mean(axis=-1, keepdims=True)
    heads = [np.asarray(weights.value)[:, h] @ centred[h] for h in range(len(centred))]
    gram = sum(head @ head.T for head in heads)
    top = np.linalg.eigvalsh(gram)[-2:].sum()
    assert np.trace(narrow.T @ gram @ narrow) >= 0.9 * top


def test_single_precision_is_close_to_double():
    weights, state = random_state(np.random.default_rng(3))
    norms = EVERY["norms"](weights)
    exact = np.asarray(EVERY["L3"](weights, norms, state)[0])
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, (weights, norms, state))
    rough, eigenvalue = EVERY["L3"](*single)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=1e-3)
    assert np.all(eigenvalue.residual <= 5 * STOP[4] * np.asarray(eigenvalue.value))
