"""Tokens on a cone under every placement of the norm: against the layers themselves, torch's, and the encoder."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matrices import orthonormal

import jaxsmooth
from jaxsmooth import Edits, EncoderConfig
from jaxsmooth.theory.literature import speed
from jaxsmooth.types import map_named

TOKENS, WIDTH, DEPTH = 5, 8, 12
PATH = {p: jax.jit(functools.partial(speed.karagodin2025_path, placement=p)) for p in speed.PLACEMENTS}
RANGE = {p: jax.jit(functools.partial(speed.karagodin2025_range, placement=p)) for p in speed.PLACEMENTS}
STEP = {p: jax.jit(functools.partial(speed.karagodin2025_step, placement=p)) for p in speed.PLACEMENTS}
SEED = st.integers(0, 2**32 - 1)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def attend(x: np.ndarray, sharpness: float) -> np.ndarray:
    return scipy.special.softmax(sharpness * x @ x.T, axis=1) @ x


LAYERS = {
    # Without a norm the values are the tokens' own, of any size; the scores are their cosines.
    "none": lambda x, alpha, beta: x + alpha * scipy.special.softmax(beta * unit(x) @ unit(x).T, axis=1) @ x,
    "post": lambda x, alpha, beta: unit(x + alpha * attend(x, beta)),
    "pre": lambda x, alpha, beta: x + alpha * attend(unit(x), beta),
    "sandwich": lambda x, alpha, beta: x + alpha * unit(attend(unit(x), beta)),
    "sphere": lambda x, alpha, beta: unit(x + alpha * (unit(attend(x, beta)) - x)),
}


def simplex(rng: np.random.Generator, cosine: float) -> np.ndarray:
    """Unit tokens of one pairwise cosine."""
    gram = (1 - cosine) * np.eye(TOKENS) + cosine
    return np.linalg.cholesky(gram) @ orthonormal(rng, WIDTH, TOKENS).T


def cone(rng: np.random.Generator, tangent: float) -> np.ndarray:
    """Unit tokens at one angle to their mean and otherwise as they like: pairs of opposite deviations, one of three."""
    frame = orthonormal(rng, WIDTH, 4).T
    three = [frame[1], *(-0.5 * frame[1] + sign * np.sqrt(0.75) * frame[2] for sign in (1, -1))]
    pair = frame[3] * np.cos(1.1) + frame[1] * np.sin(1.1)
    return unit(frame[0] + tangent * np.array([*three, pair, -pair]))


def tangent_of(x: np.ndarray) -> float:
    mean = x.mean(axis=0)
    return np.linalg.norm(x - mean) / np.sqrt(len(x)) / np.linalg.norm(mean)


def followed(placement: str, x: np.ndarray, alphas: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    states = [x]
    for alpha in alphas:
        states.append(LAYERS[placement](states[-1], alpha, beta))
    return np.array([tangent_of(x) for x in states]), np.array([np.linalg.norm(x[0]) for x in states])


@pytest.mark.parametrize("placement", speed.PLACEMENTS)
@settings(max_examples=25)
@given(seed=SEED)
def test_the_law_is_that_of_the_layers(placement, seed):
    """A simplex under softmax of any sharpness, any cone under uniform attention; strengths from layer to layer."""
    rng = np.random.default_rng(seed)
    alphas = rng.uniform(0.02, 0.9, DEPTH)
    size = 1.0 if placement in ("post", "sphere") else rng.uniform(0.3, 3)
    beta = rng.choice([0.0, 0.5, 4.0, 30.0])
    for x, sharpness in ((simplex(rng, rng.uniform(-0.2, 0.95)), beta), (cone(rng, 10 ** rng.uniform(-2, 1)), 0.0)):
        tangents, sizes = followed(placement, size * x, alphas, sharpness)
        given = tangents[0], size, alphas, sharpness, float(TOKENS)
        found = PATH[placement](*map(jnp.asarray, given))
        # The layers' own tokens are rounded to 1e-16 of their size.
        np.testing.assert_allclose(found.tangent, tangents, rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(found.size, sizes, rtol=1e-12)


@pytest.mark.parity
def test_torch_says_the_same():
    """A post-LN and a pre-LN layer of torch's own attention and LayerNorm, W_Q = W_K = I: beta = D / sqrt(H)."""
    import torch

    rng = np.random.default_rng(0)
    hidden = _centred_simplex(rng)
    for placement in ("post", "pre"):
        x = torch.tensor(hidden)[None, None]
        seen = [tangent_of(hidden)]
        for _ in range(4):
            y = torch.nn.functional.layer_norm(x, (WIDTH,), eps=0.0)
            mixed = 0.4 * torch.nn.functional.scaled_dot_product_attention(y, y, y)
            x = torch.nn.functional.layer_norm(y + mixed, (WIDTH,), eps=0.0) if placement == "post" else x + mixed
            seen.append(tangent_of(x[0, 0].numpy()))
        size = 1.0 if placement == "post" else float(hidden.std(axis=1)[0])
        arguments = seen[0], size, np.full(4, 0.4), np.sqrt(WIDTH), float(TOKENS)
        np.testing.assert_allclose(PATH[placement](*map(jnp.asarray, arguments)).tangent, seen, rtol=1e-12)


def _centred_simplex(rng: np.random.Generator) -> np.ndarray:
    """Tokens of one cosine without a component along the features' ones, of std about .8."""
    frame = np.linalg.qr(np.column_stack([np.ones(WIDTH), rng.standard_normal((WIDTH, TOKENS))]))[0][:, 1:]
    gram = 0.9 * np.eye(TOKENS) + 0.1
    return 2.3 * np.linalg.cholesky(gram) @ frame.T


@pytest.mark.parametrize(
    "placement", ["sandwich", *(pytest.param(name, marks=pytest.mark.long) for name in ("post", "pre"))]
)
def test_the_encoder_follows_it(placement):
    """The library's own blocks with values alpha I, no scores and no MLP."""
    config = EncoderConfig(
        vocab=9, width=WIDTH, layers=4, heads=2, mlp_width=4, max_length=TOKENS, placement=placement, eps=0.0
    )
    alpha, eye = 0.5, np.eye(WIDTH)
    kernels = {"blocks.attn.value.kernel": eye.reshape(WIDTH, 2, -1), "blocks.attn.output.kernel": alpha * eye}

    def plain(name: str, leaf: jax.Array) -> jax.Array:
        if not name.startswith("blocks"):
            return leaf
        if name in kernels:
            return jnp.broadcast_to(kernels[name].reshape(leaf.shape[1:]), leaf.shape)
        return leaf if name.endswith("scale") else 0 * leaf

    if placement == "sandwich":
        # The norm behind the branch takes away any factor: the strength is its gain.
        kernels["blocks.norm_attn_out.scale"] = np.full(WIDTH, alpha)
        # A zero MLP has no direction to normalise: it is a bias, and its branch is switched off by the gain.
        kernels["blocks.norm_mlp_out.scale"] = np.zeros(WIDTH)
        kernels["blocks.down.bias"] = np.arange(float(WIDTH))
    shapes = jax.eval_shape(lambda: jaxsmooth.init_encoder(config, jax.random.key(0), dtype=jnp.float64))
    model = map_named(plain, jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes))
    x = _centred_simplex(np.random.default_rng(1))
    x = x / x.std(axis=1, keepdims=True) if placement == "post" else x
    batch = jaxsmooth.Batch(tokens=jnp.zeros((1, TOKENS), jnp.int32) + 1, mask=jnp.ones((1, TOKENS), bool))
    batch = dataclasses.replace(batch, segments=0 * batch.tokens)
    edits = Edits(embedded=lambda layer, value: jnp.asarray(x)[None])
    states = np.asarray(jax.jit(lambda m: jaxsmooth.encode(m, batch, edits=edits)[1].hidden)(model))
    seen = [tangent_of(state[0]) for state in states]
    arguments = tangent_of(x), x.std(axis=1)[0], np.full(4, alpha), 0.0, float(TOKENS)
    np.testing.assert_allclose(PATH[placement](*map(jnp.asarray, arguments)).tangent[1:], seen, rtol=1e-11)


@pytest.mark.parametrize("placement", speed.PLACEMENTS)
@settings(max_examples=25)
@given(seed=SEED)
def test_the_range_holds(placement, seed):
    rng = np.random.default_rng(seed)
    start, alpha, size = 10 ** rng.uniform(-3, 2), rng.uniform(0.0, 1.0), 10 ** rng.uniform(-1, 1)
    given = (start, size, np.full(DEPTH, alpha), 0.0, 2.0)
    path = np.asarray(PATH[placement](*map(jnp.asarray, given)).tangent)
    low, high = RANGE[placement](*(jnp.full(DEPTH + 1, x) for x in (start, size, alpha)), jnp.arange(DEPTH + 1.0))
    assert np.all((path >= np.asarray(low) * (1 - 1e-12)) & (path <= np.asarray(high) * (1 + 1e-12)))
    if placement in ("none", "post", "sandwich"):
        np.testing.assert_allclose(path, low, rtol=1e-12)
        np.testing.assert_allclose(path, high, rtol=1e-12)


def test_exponential_or_like_one_over_the_depth():
    """Both ends of the ranges are reached, and L t -> d / alpha for Pre-LN and Peri-LN alike."""
    depth, alpha = 4096, 0.5
    ends = {}
    for placement in ("pre", "sandwich"):
        given = 1.0, np.sqrt(2), np.full(depth, alpha), 0.0, 2.0
        path = np.asarray(PATH[placement](*map(jnp.asarray, given)).tangent)
        ends[placement] = depth * path[-1] * alpha
    assert ends["sandwich"] == pytest.approx(1 / (1 + 1 / (alpha * depth)), rel=1e-12)
    assert ends["pre"] == pytest.approx(1, abs=3e-3)
    # A wide cone is where Pre-LN is slow: the upper end; next to consensus both are as fast: the lower.
    for start, end in ((1e3, 1), (1e-6, 0)):
        given = start, 1.0, np.full(3, 1e-4), 0.0, 2.0
        found = np.asarray(PATH["pre"](*map(jnp.asarray, given)).tangent)[-1]
        limits = RANGE["pre"](*(jnp.asarray(x) for x in (start, 1.0, 1e-4, 3.0)))
        assert found == pytest.approx(float(limits[end]), rel=1e-6)
    # The sphere: 1 - alpha next to consensus.
    found = STEP["sphere"](*map(jnp.asarray, (1e-6, 1.0, 0.3, 0.0)))[0]
    assert float(found) / 1e-6 == pytest.approx(0.7, rel=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_share_that_stays_gives_the_power_one_minus_it(share):
    """Pre-LN, t ~ L^-(1 - a): between depths 2^11 and 2^13 the power is that to 1 %."""

    def layer(state, _):
        state = speed.karagodin2025_step(*state, jnp.asarray(1.0), jnp.asarray(share), placement="pre")
        return state, state[0]

    path = np.asarray(jax.jit(lambda s: jax.lax.scan(layer, s, None, length=2**13)[1])((jnp.ones(()), jnp.ones(()))))
    power = np.log(path[2**11 - 1] / path[-1]) / np.log(4)
    assert power == pytest.approx(1 - share, rel=0.01)


def test_schedules_of_the_strength():
    """LayerNorm Scaling slows Pre-LN down to L^(-1/2); a learned step of c / l makes nGPT polynomial, L^-c."""
    layers = np.arange(1, 2**14 + 1)
    path = np.asarray(PATH["pre"](*map(jnp.asarray, (0.1, 1.0, layers**-0.5, 0.0, 2.0))).tangent)
    assert np.log(path[2**12] / path[-1]) / np.log(4) == pytest.approx(0.5, rel=0.02)
    path = np.asarray(PATH["sphere"](*map(jnp.asarray, (0.1, 1.0, 0.5 / layers, 0.0, 2.0))).tangent)
    assert np.log(path[2**12] / path[-1]) / np.log(4) == pytest.approx(0.5, rel=0.01)


def test_what_the_hypotheses_are_for():
    """Tokens on no cone, unequal sizes, and values that are no multiple of I leave the law."""
    rng = np.random.default_rng(3)
    alphas = np.full(6, 0.5)

    def miss(placement: str, x: np.ndarray) -> float:
        tangents, _ = followed(placement, x, alphas, 0.0)
        given = tangents[0], np.linalg.norm(x, axis=1).mean(), alphas, 0.0, float(TOKENS)
        return float(np.max(np.abs(np.asarray(PATH[placement](*map(jnp.asarray, given)).tangent) / tangents - 1)))

    spread = unit(rng.standard_normal((TOKENS, WIDTH)) + 1)
    assert miss("pre", cone(rng, 0.7)) < 1e-12
    assert miss("pre", spread) > 1e-4
    assert miss("pre", cone(rng, 0.7) * np.linspace(0.5, 2, TOKENS)[:, None]) > 1e-2
    # Values -I / 2 spread the tokens; alpha = -1 takes the mean away, beyond it turns over.
    assert float(STEP["post"](*map(jnp.asarray, (1.0, 1.0, -0.5, 0.0)))[0]) == pytest.approx(2)
    assert np.isnan(float(STEP["post"](*map(jnp.asarray, (1.0, 1.0, -1.0, 0.0)))[0]))


def test_the_edges():
    """Consensus and a mean of zero stay; the identity moves nothing; one token; float32 far out."""
    for placement in speed.PLACEMENTS:
        for start in (0.0, np.inf):
            assert float(STEP[placement](*map(jnp.asarray, (start, 1.0, 0.5, 0.2)))[0]) == start
        assert float(STEP[placement](*map(jnp.asarray, (0.7, 1.0, 0.5, 1.0)))[0]) == pytest.approx(0.7)
        for scale in (1e-15, 1e15) if placement in ("post", "sandwich") else ():
            strength = 0.5 * scale if placement in ("pre", "sandwich") else 0.5
            given = (jnp.float32(x) for x in (1.0, scale, strength, 0.0))
            near = (jnp.asarray(x) for x in (1.0, 1.0, 0.5, 0.0))
            found, expected = STEP[placement](*given), STEP[placement](*near)
            assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    assert float(speed.simplex_share(jnp.asarray(3.0), jnp.asarray(0.0), jnp.asarray(1.0))) == 0
    with pytest.raises(ValueError, match="placement must be one of"):
        speed.karagodin2025_step(*4 * (jnp.ones(()),), placement="peri")
    with pytest.raises(ValueError, match="placement must be one of"):
        speed.karagodin2025_range(*4 * (jnp.ones(()),), placement="peri")
