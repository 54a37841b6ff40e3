"""Small sub-layers: the turn of a token, what a LayerNorm makes of an update, layers that are hardly more than one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matrices import GARBAGE, PADDED, lengths_mask, normalised, with_spectrum
from support.models import random_batch, random_model

import jaxsmooth
from jaxsmooth.theory import castin2024_bound
from jaxsmooth.theory.block.plain_calculus import PlainCalculus
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus, ends
from jaxsmooth.theory.certify.float_calculus import HostCalculus
from jaxsmooth.theory.literature import small_weights
from jaxsmooth.theory.statement import Verdict, decide
from jaxsmooth.theory.theorems.lemmas import renormed

CASES, DIM, EPS = 20, 6, 1e-3
TURN = jax.jit(small_weights.update_turn)
ANGLE = jax.jit(small_weights.token_turn)
ONE_LAYER = jax.jit(small_weights.alman2025_one_layer)
PLAIN = jax.jit(
    lambda x, m, scale, mask: renormed(PlainCalculus(mask, x.dtype), x, m, scale, EPS),
)
SEED = st.integers(0, 2**32 - 1)


def updates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, updates from 1e-8 of them to a hundred times, along them, across, in general; padding is garbage."""
    mask = lengths_mask(rng.integers(1, PADDED + 1, CASES))
    x = rng.standard_normal((CASES, PADDED, DIM)) * 10 ** rng.uniform(-3, 3, (CASES, PADDED, 1))
    m = rng.standard_normal(x.shape)
    along = np.sum(m * x, axis=-1, keepdims=True) / np.sum(x * x, axis=-1, keepdims=True) * x
    kind = rng.integers(0, 3, (CASES, 1, 1))
    m = np.where(kind == 0, m, np.where(kind == 1, along, m - along))
    m *= np.linalg.norm(x, axis=-1, keepdims=True) / np.linalg.norm(m, axis=-1, keepdims=True)
    m *= 10 ** rng.uniform(-8, 2, (CASES, PADDED, 1))
    return np.where(mask[..., None], x, GARBAGE), np.where(mask[..., None], m, -GARBAGE), mask


def angle(x: np.ndarray, y: np.ndarray) -> float:
    """By the arc tangent of the parts of y across and along x, features centred."""
    x, y = x - x.mean(), y - y.mean()
    x = x / np.linalg.norm(x)
    along = y @ x
    return float(np.arctan2(np.linalg.norm(y - along * x), along))


@settings(max_examples=20)
@given(seed=SEED)
def test_the_speed_limit(seed):
    x, m, mask = updates(np.random.default_rng(seed))
    found = TURN(x, m, mask)
    turn, limit, known = (np.asarray(part) for part in found)
    assert not np.any(known & ~mask)
    assert np.all(turn[known] <= limit[known] * (1 + 1e-9) + 1e-15)
    for b, t in np.argwhere(mask)[:20]:
        assert turn[b, t] == pytest.approx(angle(x[b, t], x[b, t] + m[b, t]), rel=1e-7, abs=1e-15)
    centred = x - x.mean(axis=-1, keepdims=True)
    smaller = np.linalg.norm(m - m.mean(axis=-1, keepdims=True), axis=-1) < np.linalg.norm(centred, axis=-1)
    np.testing.assert_array_equal(known, mask & smaller)


def test_the_speed_limit_is_attained_and_ends_at_one():
    """u at a right angle to m: s is the sine of the turn. Beyond s = 1 a token may turn right over."""
    u, m = np.array([1.0, 1.0, -2.0, 0.0, 0.0, 0.0]), np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    for share in (1e-6, 0.3, 0.999):
        added = share * m * np.sqrt(3) / np.sqrt(1 - share**2)
        turn, limit, known = TURN(*(_wide(row) for row in (u - added, added)), lengths_mask(np.full(CASES, 1)))
        assert np.asarray(known)[0, 0]
        assert float(turn[0, 0]) == pytest.approx(float(limit[0, 0]), rel=1e-9)
        assert float(limit[0, 0]) == pytest.approx(np.arcsin(share), rel=1e-9)
    turn, limit, known = TURN(_wide(u), _wide(-1.1 * u), lengths_mask(np.full(CASES, 1)))
    assert not np.asarray(known)[0, 0]
    assert float(turn[0, 0]) == pytest.approx(np.pi) == float(limit[0, 0])
    # A column that all features share is nothing to a LayerNorm, and something to RMSNorm.
    one, mask = np.ones((1, DIM)), np.ones(1, bool)
    assert float(ANGLE(u[None], u[None] + 5 * one, mask)[0]) == pytest.approx(0, abs=1e-12)
    plain = small_weights.token_turn(jnp.asarray(u)[None], jnp.asarray(u)[None] + one, jnp.asarray(mask), centred=False)
    assert float(plain[0]) == pytest.approx(np.arccos(6 / np.sqrt(6 * 12)))
    assert float(ANGLE(0 * one, one, mask)[0]) == 0


def _wide(row: np.ndarray) -> np.ndarray:
    return np.broadcast_to(row, (CASES, PADDED, DIM))


def plain_update(x: np.ndarray, m: np.ndarray, scale: np.ndarray, eps: float) -> tuple[float, float]:
    """Both sides from the definitions."""
    apart = (normalised(x + m, eps, True)[0] - normalised(x, eps, True)[0]) * scale
    stds = [np.sqrt(y.var(axis=1, keepdims=True) + eps) for y in (x, x + m)]
    sizes = [np.linalg.norm((m - m.mean(axis=1, keepdims=True)) / std) for std in stds]
    return np.linalg.norm(apart), np.abs(scale).max() * np.sqrt(sizes[0] * sizes[1])


@settings(max_examples=20)
@given(seed=SEED)
def test_what_a_layer_norm_makes_of_an_update(seed):
    """Plain arrays against numpy, padding garbage or not, and the inequality."""
    rng = np.random.default_rng(seed)
    x, m, mask = updates(rng)
    scale = rng.standard_normal(DIM) * 10 ** rng.uniform(-3, 3)
    x, m = (np.where(mask[..., None], array, 0) for array in (x, m))
    found = PLAIN(x, m, scale, mask)
    lhs, rhs = np.asarray(found.lhs), np.asarray(found.rhs)
    assert np.all(lhs <= rhs * (1 + 1e-7))
    for k in range(0, CASES, 5):
        one, other = plain_update(x[k][mask[k]], m[k][mask[k]], scale, EPS)
        assert lhs[k] == pytest.approx(one, rel=1e-7, abs=1e-9 * other + 1e-12 * np.abs(scale).max())
        assert rhs[k] == pytest.approx(other, rel=1e-9)


def test_the_update_in_enclosures():
    """Float enclosures hold Arb's, both confirm, and a turn at one std is an equality that neither calls false."""
    rng = np.random.default_rng(4)
    for _ in range(6):
        x, m, scale = rng.standard_normal((3, DIM)), rng.standard_normal((3, DIM)), rng.standard_normal(DIM)
        host, oracle = HostCalculus(np.ones(3, bool), np.float64), ArbCalculus(3)
        near, exact = (renormed(c, c.matrix(x), c.matrix(m), scale, EPS) for c in (host, oracle))
        for side, true in zip(near[:2], exact[:2], strict=True):
            low, high = ends(true)
            assert side.lower <= high
            assert side.upper >= low
        assert decide(*near[:2]) == Verdict.CONFIRMED
    u, v = np.array([1.0, -1.0, 0, 0, 0, 0]), np.array([0, 0, 1.0, -1.0, 0, 0])
    lhs, rhs = plain_update(u[None], (v - u)[None], np.ones(DIM), 0.0)
    assert lhs == pytest.approx(rhs, rel=1e-15)
    # An imposed std is no hypothesis of it: divided by 1 and by 1/9, equal tokens are eight times themselves apart.
    assert np.linalg.norm(9 * u - u) > plain_update(u[None], 0 * u[None], np.ones(DIM), 0.0)[1] == 0


def test_the_registered_theorem_on_a_block():
    """Both sites of a random encoder's first block, as `verify` is given them, against numpy."""
    model, batch = random_model(), random_batch((7,), 7)
    trace = jax.jit(lambda m, b: jaxsmooth.encode(m, b, collect=lambda t: (t.input, t.mixed, t.normed, t.mlp))[1])
    x, mixed, normed, mlp = (np.asarray(part)[0, 0] for part in trace(model, batch))
    for first, added, norm in ((x, mixed, "attn"), (normed, mlp, "mlp")):
        scale = np.asarray(getattr(model.blocks, f"norm_{norm}").scale[0])
        lhs, rhs = plain_update(first, added, scale, model.config.eps)
        assert 0 < lhs <= rhs


def residual_attention(rng: np.random.Generator, size: float, depth: int) -> tuple[list, np.ndarray]:
    """Layers F(X) = softmax(X B X^T) X V and their Lipschitz constants on tokens of norm at most 2."""
    kernels = [[with_spectrum(rng, size * rng.uniform(0.2, 1, 4), 4, 4) for _ in "BV"] for _ in range(depth)]
    layers = [lambda x, b=b, v=v: scipy.special.softmax(x @ b @ x.T, axis=1) @ x @ v for b, v in kernels]
    norms = np.array([[np.linalg.norm(v, 2), np.linalg.norm(b, 2)] for b, v in kernels])
    constants = castin2024_bound(*jnp.asarray(norms.T), jnp.full(depth, 2.0), jnp.full(depth, 5.0))
    return layers, np.asarray(constants)


def run(layers: list, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    state = x
    for layer in layers:
        state = state + layer(state)
        assert np.linalg.norm(state, axis=1).max() <= 2
    return state, np.stack([layer(x) for layer in layers])


@settings(max_examples=20)
@given(seed=SEED)
def test_deep_networks_of_small_weights_are_one_layer(seed):
    """Residual attention of weights .001 to .05 and 6 layers; second order: at a tenth of the weights a hundredth."""
    misses = []
    for shrunk in (1.0, 0.1):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((5, 4))
        x = x / np.linalg.norm(x, axis=1).max()
        layers, constants = residual_attention(rng, shrunk * 10 ** rng.uniform(-3, -1.3), 6)
        after, at_start = run(layers, x)
        found = ONE_LAYER(x, after, at_start, constants, np.ones(5, bool))
        assert bool(found.applicable)
        assert float(found.lhs) <= float(found.rhs)
        misses.append(np.linalg.norm(after - x - at_start.sum(axis=0)))
        assert float(found.lhs) == pytest.approx(misses[-1], rel=1e-6, abs=1e-15)
    assert misses[1] < 0.02 * misses[0]


def test_one_layer_is_attained_and_needs_the_constants():
    rng = np.random.default_rng(1)
    x, constants = rng.standard_normal((5, 4)), rng.uniform(0, 2, 6)
    after, at_start = np.prod(1 + constants) * x, constants[:, None, None] * x
    found = ONE_LAYER(x, after, at_start, constants, np.ones(5, bool))
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)
    # Constants that are too small: false. Padding counts for nothing. Large weights: two layers are not one.
    short = ONE_LAYER(x, after, at_start, 0.5 * constants, np.ones(5, bool))
    assert float(short.lhs) > float(short.rhs)
    mask = np.arange(5) < 3
    assert float(ONE_LAYER(x, after, at_start, constants, mask).lhs) < float(found.lhs)
    assert not bool(ONE_LAYER(x, after, at_start, -constants, mask).applicable)
