"""The certified rate of a region: above the exact norms, next to them, and above every input of the region."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers_regions import PHI, SmallBlock, distance, small_block
from helpers_statements import record
from scipy.special import softmax

from jaxsmooth.theory.region import Region
from jaxsmooth.theory.region_certificate import certified_secant_box_rate
from jaxsmooth.theory.slopes import secant_slope
from jaxsmooth.theory.weights import BlockWeights

TOKENS, WIDTH, HEADS = 4, 6, 2


def setting(seed: int, size: float) -> tuple[SmallBlock, np.ndarray, np.ndarray, dict, np.ndarray]:
    """A block, attention, an input, what the block makes of it, and the half-widths of a box."""
    rng = np.random.default_rng(seed)
    block = small_block(rng, "gelu")
    attn = softmax(2 * rng.standard_normal((1, HEADS, TOKENS, TOKENS)), axis=-1)
    x = rng.standard_normal((1, TOKENS, WIDTH)) + rng.standard_normal(WIDTH)
    run = block.run(attn, x)
    return block, attn, x, run, size * rng.uniform(0, 1, run["pre"].shape)


def certified(block: SmallBlock, attn: np.ndarray, run: dict, radius: np.ndarray):
    arrays = (attn, run["std_attn"], run["std_mlp"], np.ones((1, TOKENS), bool), run["pre"], radius)
    return certified_secant_box_rate(
        BlockWeights(*map(jnp.asarray, block.weights)), Region(*map(jnp.asarray, arrays)), "gelu"
    )


def norms_by_definition(block: SmallBlock, attn: np.ndarray, run: dict) -> tuple[float, float]:
    """nu and mu of theorem 2 for a box of one point, from dense matrices and numpy's SVD."""
    d, n = WIDTH, TOKENS
    value, output, scale_attn, up, down, scale_mlp = block.weights
    centring = np.eye(d) - 1 / d
    gains = np.sqrt(3 * scale_mlp**2 + 1.5 * np.max(np.abs(scale_mlp)) ** 2)
    basis = np.eye(n * d).reshape(n * d, n, d)
    mixed = (basis + np.einsum("nts,bsd,dnh,nhe->bte", attn[0], basis, value, output)) @ centring
    composed, separate = [], []
    for i in range(n):
        for j in range(i + 1, n):
            share = 1 / np.prod([run[key][0, i, 0] + run[key][0, j, 0] for key in ("std_attn", "std_mlp")])
            a, b = run["pre"][0, i], run["pre"][0, j]
            slope = (PHI["gelu"](a) - PHI["gelu"](b)) / (a - b)
            matrix = centring @ np.diag(scale_attn) @ (np.eye(d) + up * slope @ down) @ centring * gains
            pair = share * (mixed[:, i] - mixed[:, j])
            composed.append(pair @ matrix)
            separate.append(pair * np.linalg.norm(matrix, 2))
    return tuple(np.linalg.norm(np.concatenate(parts, axis=1), 2) / np.sqrt(n) for parts in (composed, separate))


def check_against_dense(seed: int) -> None:
    block, attn, _, run, radius = setting(seed, 0.0)
    found = certified(block, attn, run, radius)
    composed, separate = norms_by_definition(block, attn, run)
    for proved, exact in ((found.composed, composed), (found.separate, separate)):
        assert exact * (1 - 1e-12) <= proved <= exact * (1 + 1e-4)
    assert found.rate >= composed + separate


@pytest.mark.parametrize("seed", range(20))
def test_it_is_next_to_the_exact_norms_and_not_below(seed):
    check_against_dense(seed)


def check_members(seed: int, probes: int) -> None:
    """Inputs around the observed one that stay in the region: none is stretched by more."""
    block, attn, x, run, radius = setting(seed, 0.3)
    rate = certified(block, attn, run, radius).rate
    rng = np.random.default_rng(seed)
    near = x + 10 ** rng.uniform(-4, 0, (probes, 1, 1)) * rng.standard_normal((probes, TOKENS, WIDTH))
    near = np.concatenate([x, near])
    moved = block.run(np.broadcast_to(attn, (len(near), *attn.shape[1:])), near)
    inside = np.all(np.abs(moved["pre"] - run["pre"]) <= radius, axis=(1, 2))
    inside &= np.all((moved["std_attn"] >= run["std_attn"]) & (moved["std_mlp"] >= run["std_mlp"]), axis=(1, 2))
    assert inside[0]
    every = np.ones((len(near), TOKENS), bool)
    before, after = distance(near, every), distance(moved["less_shift"], every)
    record(after[inside], rate * before[inside], int(np.sum(after[inside] > rate * before[inside])))
    assert np.all(after[inside] <= rate * before[inside])


@pytest.mark.parametrize("seed", range(20, 25))
def test_it_holds_in_the_region(seed):
    check_members(seed, 100)


def test_a_box_costs_and_two_antipodal_tokens_come_near():
    block, attn, _, run, radius = setting(3, 1.0)
    point, box = (certified(block, attn, run, size * radius) for size in (0, 1))
    assert point.rate < box.rate
    # No attention, no MLP, unit gains: the rate is sqrt(4.5)/2 of the actual one, 1/(s t); five equal singular values
    # leave the squarings of a norm 5^(1/2^12) above it.
    zero = [np.zeros_like(w) for w in block.weights]
    plain = BlockWeights(zero[0], zero[1], np.ones(WIDTH), zero[3], zero[4], np.ones(WIDTH))
    std = np.full((1, 2, 1), 2.0)
    wide = np.zeros((1, 2, zero[3].shape[1]))
    region = Region(np.full((1, HEADS, 2, 2), 0.5), std, std, np.ones((1, 2), bool), wide, wide)
    assert certified_secant_box_rate(plain, region, "gelu").rate == pytest.approx(4.5**0.5 / 2 / 4, rel=5e-4)


def test_what_it_does_not_cover_is_refused():
    block, attn, _, run, radius = setting(0, 0.0)
    arrays = (attn, run["std_attn"], run["std_mlp"], np.arange(TOKENS)[None] > 0, run["pre"], radius)
    weights, region = BlockWeights(*map(jnp.asarray, block.weights)), Region(*map(jnp.asarray, arrays))
    with pytest.raises(ValueError, match="without padding; got 1 sentences, 1 padded tokens"):
        certified_secant_box_rate(weights, region, "gelu")
    with pytest.raises(ValueError, match="activation must be 'gelu'"):
        certified_secant_box_rate(weights, region, "silu")


def test_a_secant_of_relu_across_the_kink_is_no_tangent():
    """However near the two points are: from -1e-9 to 3e-9 it is 3/4."""
    assert float(secant_slope("relu", jnp.array(-1e-9), jnp.array(3e-9))) == pytest.approx(0.75)
    assert float(secant_slope("relu", jnp.array(2.0), jnp.array(2.0))) == 1
