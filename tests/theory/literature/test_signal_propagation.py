"""A wide random block as two numbers and its exponents, against integrals and against the library's own encoders."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import jaxsmooth
from jaxsmooth import Edits, EncoderConfig
from jaxsmooth.theory.literature import signal_propagation as sp
from jaxsmooth.types import map_named

TOKENS, WIDTH, LAYERS, SEEDS = 4, 128, 3, 8


def gelu(x):
    return x * scipy.stats.norm.cdf(x)


PLAIN = {
    "relu": lambda x: max(x, 0.0),
    "gelu": gelu,
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", PLAIN)
def test_the_kernels_against_adaptive_integrals(activation):
    function, step = PLAIN[activation], 1e-6

    def expected(of) -> float:
        return scipy.integrate.quad(lambda z: of(z) * scipy.stats.norm.pdf(z), -12, 12, points=[0], epsabs=1e-13)[0]

    def slope(x: float) -> float:
        return (function(x + step) - function(x - step)) / (2 * step)

    for std in (0.3, 1.0, 2.5, 12.0):
        square = expected(lambda z, std=std: function(std * z) ** 2)
        assert float(sp.activation_kernel(activation, std, 1.0)) == pytest.approx(square, rel=1e-8)
        square = std**2 * expected(lambda z, std=std: slope(std * z) ** 2)
        assert sp.activation_slope(activation, std) == pytest.approx(square, rel=2e-5)
    # The kernel's slope at 1 is that, and independent arguments have the square of the mean.
    mean = expected(function)
    assert float(sp.activation_kernel(activation, 1.0, 0.0)) == pytest.approx(mean**2, abs=1e-9)
    near = sp.activation_kernel(activation, 1.0, np.array([1.0, 1 - 1e-6]))
    assert (near[0] - near[1]) / 1e-6 == pytest.approx(sp.activation_slope(activation, 1.0), rel=2e-3)


def encoder(block: sp.RandomBlock, seed: int, *, layers: int = LAYERS, query: float = 0.0) -> jaxsmooth.Encoder:
    """A random encoder with those stds; queries of a std of their own, 0 for uniform attention."""
    config = EncoderConfig(
        vocab=9, width=WIDTH, layers=layers, heads=4, mlp_width=4 * WIDTH, max_length=TOKENS, eps=0.0,
        activation=block.activation, placement=block.placement, skip_scale=block.skip, branch_scale=block.branch,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    stds = {
        **dict.fromkeys(("query", "key"), query),
        **dict.fromkeys(("value", "output"), np.sqrt(block.value / WIDTH)),
        "up": block.up / np.sqrt(WIDTH),
        "down": block.down / np.sqrt(4 * WIDTH),
    }

    def draw(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if name.endswith("kernel") and name.split(".")[-2] in stds:
            return jnp.asarray(stds[name.split(".")[-2]] * rng.standard_normal(leaf.shape))
        return jnp.full(leaf.shape, float(name.endswith("scale")))

    return map_named(draw, jax.eval_shape(functools.partial(_init, config)))


def _init(config: EncoderConfig) -> jaxsmooth.Encoder:
    return jaxsmooth.init_encoder(config, jax.random.key(0), dtype=jnp.float64, pooler=False)


def start(seed: int, size: float, cosine: float) -> np.ndarray:
    """Tokens of one std and one pairwise cosine, features centred: exactly, not on average."""
    rng = np.random.default_rng(1000 + seed)
    frame = np.linalg.qr(np.column_stack([np.ones(WIDTH), rng.standard_normal((WIDTH, TOKENS))]))[0][:, 1:]
    gram = (1 - cosine) * np.eye(TOKENS) + cosine
    return size * np.sqrt(WIDTH) * np.linalg.cholesky(gram) @ frame.T


@jax.jit
def states(model: jaxsmooth.Encoder, embedded: jax.Array) -> jax.Array:
    """Hidden states of every layer."""
    ids = jnp.ones((1, TOKENS), jnp.int32)
    batch = jaxsmooth.Batch(tokens=ids, segments=0 * ids, mask=jnp.ones((1, TOKENS), bool))
    edits = Edits(embedded=jax.tree_util.Partial(lambda x, layer, value: x[None], embedded))
    return jaxsmooth.encode(model, batch, edits=edits)[1].hidden[:, 0]


@jax.jit
def pulled(model: jaxsmooth.Encoder, embedded: jax.Array, weights: jax.Array) -> jax.Array:
    """Squares of the gradients of sum_i <w_i, h_i> with respect to the embedding, one for each w."""
    _, pull = jax.vjp(lambda x: states(model, x)[-1], embedded)
    return jnp.stack([jnp.sum(pull(w)[0] ** 2) for w in weights])


def geometry(x: np.ndarray) -> tuple[float, float]:
    """Root mean square of the tokens' stds, and the mean product of two over their mean square."""
    x = x - x.mean(axis=1, keepdims=True)
    gram = x @ x.T / WIDTH
    square = np.trace(gram) / TOKENS
    return np.sqrt(square), (gram.sum() - np.trace(gram)) / (TOKENS * (TOKENS - 1)) / square


BLOCKS = {
    "post": sp.RandomBlock(0.8, 1.5, 1.3, skip=1.2, branch=0.9),
    "pre": sp.RandomBlock(0.8, 1.5, 1.3, placement="pre"),
    "sandwich": sp.RandomBlock(0.8, 1.5, 1.3, placement="sandwich", activation="relu"),
}


def mostly_long(default: str) -> list:
    return [pytest.param(name, marks=() if name == default else pytest.mark.long) for name in BLOCKS]


@pytest.mark.parametrize("placement", mostly_long("post"))
def test_wide_encoders_follow_the_map(placement):
    """Size and cosine after each of 3 layers, means of 8 encoders of width 128: within 4 standard errors and 2 / D.

    The fluctuation of one encoder, of the order of D^-1/2 = .09, is in the standard errors: at most .02.
    """
    block = BLOCKS[placement]
    size = 1.0 if placement == "post" else 1.4
    found = np.array(
        [
            [geometry(np.asarray(state)) for state in states(encoder(block, seed), jnp.asarray(start(seed, size, 0.3)))]
            for seed in range(SEEDS)
        ]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    assert error.max() < 0.02 * found.mean(axis=0).max()
    expected = (size, 0.3)
    for layer in range(LAYERS):
        expected = sp.cowsik2024_step(block, *expected, TOKENS)
        gap = np.abs(found[:, layer].mean(axis=0) - expected)
        assert np.all(gap < 4 * error[layer] + 2 / WIDTH), (layer, found[:, layer].mean(axis=0), expected)


@pytest.mark.parametrize("placement", mostly_long("pre"))
def test_wide_encoders_have_the_exponents(placement):
    """Next to consensus: the angle forward, a common and a centred gradient backward, queries and keys of any size.

    Means of 40 encoders of width 128, each of which is off by .15 to .25 of the expectation.
    """
    block, size = BLOCKS[placement], 1.0 if placement == "post" else 1.4
    found, weights = [], np.random.default_rng(5).standard_normal((2, TOKENS, WIDTH))
    weights -= weights.mean(axis=-1, keepdims=True)
    weights[0], weights[1] = weights[0, :1], weights[1] - weights[1].mean(axis=0)
    for seed in range(5 * SEEDS):
        model, x = encoder(block, seed, layers=1, query=0.1), start(seed, size, 1 - 1e-8)
        angle = (1 - geometry(np.asarray(states(model, jnp.asarray(x)))[-1])[1]) / 1e-8
        back = np.asarray(pulled(model, jnp.asarray(x), jnp.asarray(weights))) / (weights**2).sum(axis=(1, 2))
        found.append([angle, *back])
    ratios = np.array(found) / np.exp(sp.cowsik2024_exponents(block, size))
    error = ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios))
    assert error.max() < 0.05
    assert np.all(np.abs(ratios.mean(axis=0) - 1) < 4 * error + 2 / WIDTH), (ratios.mean(axis=0), error)
    # Far from one another, or the comparison says little.
    assert np.ptp(sp.cowsik2024_exponents(block, size)) > 0.3


def test_the_exponents_are_the_slopes_of_the_map():
    """The angle exponent by a difference quotient of the map at c = 1; smooth activations."""
    for placement in ("post", "pre", "sandwich"):
        for activation in ("gelu", "tanh", "silu"):
            block = sp.RandomBlock(0.7, 1.3, 1.1, 0.9, 1.2, activation, placement)
            size = 1.0 if placement == "post" else 2.0
            # One token counts as many: at consensus uniform attention gives all the same.
            _, cosine = sp.cowsik2024_step(block, size, 1 - 1e-7, tokens=10**9)
            assert float(sp.cowsik2024_exponents(block, size).angle) == pytest.approx(
                np.log((1 - float(cosine)) / 1e-7), abs=2e-5
            )


def test_the_critical_lines_of_post_ln():
    """angle = gradient - log(1 + (branch value / skip)^2): zero together without attention only."""
    block = sp.RandomBlock(0.0, 2.0, 3.0, skip=1.5, branch=0.5)
    critical = sp.cowsik2024_critical_value(block)
    assert critical > 0.5
    for value, sign in ((critical, 0), (0.8 * critical, 1), (1.25 * critical, -1)):
        found = sp.cowsik2024_exponents(dataclasses.replace(block, value=value))
        assert np.sign(np.round(found.angle, 12)) == sign
        assert found.angle == pytest.approx(found.gradient - np.log1p((value / 3) ** 2), rel=1e-12)
        assert found.gradient > 0
        assert found.difference == found.angle
    # ReLU, being homogeneous, has no gradient exponent at any std, so no critical value and tokens always meet.
    for up, down in ((0.1, 5.0), (3.0, 0.2)):
        relu = sp.RandomBlock(1.0, up, down, activation="relu")
        assert sp.cowsik2024_exponents(relu).gradient == pytest.approx(0, abs=1e-15)
        assert sp.cowsik2024_critical_value(relu) == pytest.approx(0, abs=1e-7)
    # An odd activation: E phi^2 <= std^2 E phi'^2 at any std, by Poincare's inequality, so gradients never vanish.
    for up in (0.1, 1.0, 5.0):
        assert sp.cowsik2024_exponents(sp.RandomBlock(1.0, up, 1.0, activation="tanh")).gradient > 0


@pytest.mark.parametrize("placement", ["pre", "sandwich"])
def test_powers_of_the_depth(placement):
    """Pre-LN and Peri-LN: 1 - cos ~ l^-p between 2^10 and 2^12 layers of the map, and sums of the exponents."""
    block = sp.RandomBlock(1.0, 0.5, 1.0, placement=placement)
    angle, gradient = sp.cowsik2024_powers(block)
    value, whole, _ = sp._branches(block)
    sizes = np.sqrt(4.0 + (value + whole) * np.arange(2**12))
    found = sp.cowsik2024_exponents(block, sizes)
    for exponents, power in ((found.angle, -angle), (found.gradient, gradient)):
        assert exponents[2**10 :].sum() / np.log(4) == pytest.approx(power, rel=0.01)
    assert angle + gradient == pytest.approx(1 + value / (value + whole))
    with pytest.raises(ValueError, match="powers are of blocks with norms inside"):
        sp.cowsik2024_powers(sp.RandomBlock())
    with pytest.raises(ValueError, match="that of a post-LN block"):
        sp.cowsik2024_critical_value(block)
    with pytest.raises(ValueError, match="activation must be one of"):
        sp.RandomBlock(activation="swish")
    with pytest.raises(ValueError, match="placement must be one of"):
        sp.RandomBlock(placement="peri")
