"""Rates on a region of inputs: half-linear LayerNorm and boxes of secant slopes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.matrices import GARBAGE
from support.regions import PHI, SENTENCES, TOKENS, WIDTH, SmallBlock, small_attention, small_block
from support.statements import distances

from jaxsmooth.theory import block_of
from jaxsmooth.theory.rates.region import Region, inside, layer_norm_half_linear, secant_box_rate, slope_box_rate
from jaxsmooth.types import Block

TIGHT = 1e-9  # of Lanczos: far below the slack that is asserted
PROBES = 80
_INSIDE = jax.jit(inside)


@functools.cache
def _rates(activation):
    def both(weights, region):
        return (
            secant_box_rate(weights, region, activation, tolerance=TIGHT).rate,
            slope_box_rate(weights, region, activation, tolerance=TIGHT).rate,
        )

    return jax.jit(both)


def _weights(block: SmallBlock) -> Block:
    return block_of(*map(jnp.asarray, block.weights))


def _region(attn, mask, run, factor, radius) -> Region:
    arrays = (attn, factor * run["std_attn"], factor * run["std_mlp"], mask, run["pre"], radius)
    return Region(*map(jnp.asarray, arrays))


def _member(region, run):
    found = _INSIDE(region, *(jnp.asarray(run[key]) for key in ("std_attn", "std_mlp", "pre")))
    return np.asarray(found)


def _tokens(rng, cases, width):
    """Pairs of tokens: independent, parallel, antipodal, nearly equal, of very different lengths."""
    u = 10 ** rng.uniform(-3, 3, (cases, 1)) * rng.standard_normal((cases, width))
    v = 10 ** rng.uniform(-3, 3, (cases, 1)) * rng.standard_normal((cases, width))
    v[::5] = u[::5] * 10 ** rng.uniform(-2, 2, (len(u[::5]), 1))
    v[1::5] = -u[1::5]
    v[2::5] = u[2::5] * (1 + 1e-4 * rng.standard_normal(u[2::5].shape))
    return u, v


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
@pytest.mark.parametrize("width", [2, 3, 16])
def test_layer_norm_is_half_linear(eps, width):
    rng = np.random.default_rng(width)
    u, v = _tokens(rng, 2000, width)
    stds = [np.sqrt(x.var(axis=1) + eps) for x in (u, v)]
    least = [s * rng.choice([1.0, 0.999, 0.3], len(s)) for s in stds]
    lhs, rhs, applicable = layer_norm_half_linear(*map(jnp.asarray, (u, v, *least)), eps=eps)
    assert applicable.all()
    rounding = 1e-12 * np.linalg.norm(u / stds[0][:, None], axis=1)
    assert np.all(lhs <= rhs * (1 + 1e-12) + rounding)


def test_half_linear_is_attained_in_both_directions():
    u = jnp.array([1.0, -1.0, 0.0])
    std = jnp.std(u)
    # Antipodal: the rest points along the difference. Parallel: it points against it, for LN(u) = LN(2u).
    for v, least in ((-u, std), (2 * u, 2 * std)):
        lhs, rhs, applicable = layer_norm_half_linear(u, v, std, least)
        assert applicable
        assert abs(float(lhs / rhs) - 1) < 1e-12


def test_half_linear_needs_lower_bounds_of_the_stds():
    u = jnp.array([1.0, -1.0, 0.0])
    lhs, rhs, applicable = layer_norm_half_linear(u, -u, 2 * jnp.std(u), 2 * jnp.std(u))
    assert not applicable
    assert lhs > 2 * rhs


def _probe(rng, x, mask):
    """Another input: a step from the observed one of any size, sometimes towards or away from consensus."""
    step = 10 ** rng.uniform(-4, 0) * np.linalg.norm(x[mask]) / np.sqrt(x.size)
    mean = (x * mask[..., None]).sum(axis=1, keepdims=True) / mask.sum(axis=1)[:, None, None]
    return mean + (x - mean) * rng.choice([1.0, 1.0, 0.9, 1.2, 0.5]) + step * rng.standard_normal(x.shape)


def _search(rng, activation, blocks):
    """Per rate: how many inputs of a region were met, and the largest actual rate over the bound."""
    counts, worst = np.zeros(2, int), np.zeros(2)
    for _ in range(blocks):
        block = small_block(rng, activation)
        attn, mask = small_attention(rng)
        x = rng.standard_normal((SENTENCES, TOKENS, WIDTH)) + rng.choice([0, 3]) * rng.standard_normal(WIDTH)
        run = block.run(attn, x)
        radius = 10 ** rng.uniform(-2, 0.5) * np.abs(rng.standard_normal(run["pre"].shape))
        region = _region(attn, mask, run, rng.choice([0.3, 0.8, 0.999]), radius)
        bounds = np.asarray(_rates(activation)(_weights(block), region))
        for other in (x, *(_probe(rng, x, mask) for _ in range(PROBES))):
            again = block.run(attn, other)
            actual = distances(again["less_shift"], mask) / distances(other, mask)
            for which, member in enumerate((_member(region, again), _member(_hull(region), again))):
                counts[which] += member.sum()
                worst[which] = max(worst[which], np.max(np.where(member, actual / bounds[which], 0)))
    return counts, worst


def _hull(region):
    """The region in which every token may be anywhere between the ends of all boxes."""
    real = np.asarray(region.mask)[..., None]
    low = np.where(real, region.centre - region.radius, np.inf).min(axis=1, keepdims=True)
    high = np.where(real, region.centre + region.radius, -np.inf).max(axis=1, keepdims=True)
    shape = region.centre.shape
    middle, half = ((high + low) / 2, (high - low) / 2 * (1 + 1e-12))
    return region._replace(
        centre=jnp.asarray(np.broadcast_to(middle, shape)), radius=jnp.asarray(np.broadcast_to(half, shape))
    )


@pytest.mark.parametrize(
    ("blocks", "cases"),
    [pytest.param(18, 1000, id="few"), pytest.param(2000, 100_000, id="many", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    "activation", [pytest.param(name, marks=() if name == "gelu" else pytest.mark.long) for name in PHI]
)
def test_rates_hold_on_random_inputs_of_the_region(activation, blocks, cases):
    counts, worst = _search(np.random.default_rng(7), activation, blocks)
    assert counts.min() >= cases
    assert worst.max() <= 1 + 1e-9
    assert worst.max() > 0.1  # random inputs, not extremal ones: see the antipodal tokens for those


def _plain_block(**changes) -> SmallBlock:
    """No attention, no MLP, unit gains: both LayerNorms and nothing else."""
    zeros = np.zeros
    parts = {
        "value": zeros((WIDTH, 2, 3)),
        "output": zeros((2, 3, WIDTH)),
        "scale_attn": np.ones(WIDTH),
        "up": zeros((WIDTH, 5)),
        "down": zeros((5, WIDTH)),
        "scale_mlp": np.ones(WIDTH),
        "biases": (zeros(WIDTH), zeros(WIDTH), zeros(5), zeros(WIDTH)),
        "eps": 0.0,
        "activation": "relu",
    }
    return SmallBlock(**{**parts, **changes})


def _antipodal():
    u = np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5])
    x = np.zeros((1, TOKENS, WIDTH))
    x[0, :2], x[0, 2:] = (u, -u), np.arange(WIDTH)
    attn = np.zeros((1, 2, TOKENS, TOKENS))
    attn[..., :2] = 0.5
    return x, attn, np.arange(TOKENS)[None] < 2


def test_rate_is_tight_on_antipodal_tokens():
    block = _plain_block()
    x, attn, mask = _antipodal()
    run = block.run(attn, x)
    actual = distances(run["less_shift"], mask) / distances(x, mask)
    bounds = np.asarray(_rates("relu")(_weights(block), _region(attn, mask, run, 1.0, np.zeros_like(run["pre"]))))
    # Both halves of both LayerNorms are attained; the split of the gain, th = 2, costs sqrt(4.5) / 2.
    np.testing.assert_allclose(bounds, np.broadcast_to(4.5**0.5 / 2 * actual, bounds.shape), rtol=1e-6)


def test_rate_fails_outside_the_box():
    # Two ReLU units add 49 times the component along b: dead at bias -1e4, together linear at bias 0.
    along = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    across = np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]) / 2
    up, down = np.zeros((WIDTH, 5)), np.zeros((5, WIDTH))
    up[:, 0], up[:, 1], down[0], down[1] = across, -across, 49 * across, -49 * across
    none = np.zeros(WIDTH)
    dead = _plain_block(up=up, down=down, biases=(none, none, np.full(5, -1e4), none))
    live = _plain_block(up=up, down=down)
    x, attn, mask = _antipodal()
    x[0, 0], x[0, 1] = along, along + 1e-3 * across
    run = dead.run(attn, x)
    region = _region(attn, mask, run, 1 - 1e-12, np.ones_like(run["pre"]))
    bounds = np.asarray(_rates("relu")(_weights(dead), region))
    inner, outer = dead.run(attn, x), live.run(attn, x)
    assert _member(region, inner).all()
    assert not _member(region, outer).any()
    assert _member(region._replace(centre=jnp.asarray(outer["pre"])), outer).all()  # the box alone is left
    assert distances(inner["less_shift"], mask) / distances(x, mask) <= bounds.min()
    assert distances(outer["less_shift"], mask) / distances(x, mask) > 20 * bounds.max()


def test_padding_changes_nothing():
    rng = np.random.default_rng(5)
    block = small_block(rng, "gelu")
    attn, mask = small_attention(rng)
    run = block.run(attn, rng.standard_normal((SENTENCES, TOKENS, WIDTH)))
    region = _region(attn, mask, run, 1.0, 0.1 + 0 * run["pre"])
    pad = ~jnp.asarray(mask)[..., None]
    littered = region._replace(
        std_attn=jnp.where(pad, 1e-6, region.std_attn),
        std_mlp=jnp.where(pad, GARBAGE, region.std_mlp),
        centre=jnp.where(pad, -GARBAGE, region.centre),
        radius=jnp.where(pad, GARBAGE, region.radius),
    )
    clean, dirty = (_rates("gelu")(_weights(block), r) for r in (region, littered))
    np.testing.assert_allclose(dirty, clean, rtol=1e-9)


@pytest.mark.long
def test_a_wider_box_never_lowers_the_rate():
    rng = np.random.default_rng(6)
    block = small_block(rng, "silu")
    attn, mask = small_attention(rng)
    run = block.run(attn, rng.standard_normal((SENTENCES, TOKENS, WIDTH)))
    # In the box with one point the slopes are the observed secants, which the hull's range contains.
    point, hull = _rates("silu")(_weights(block), _region(attn, mask, run, 1.0, 0 * run["pre"]))
    assert np.all(np.asarray(point) <= np.asarray(hull) * (1 + 1e-9))
