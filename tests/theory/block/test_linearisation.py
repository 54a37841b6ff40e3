"""The law of a block next to consensus, by finite differences in numpy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import centring, normalised
from support.statements import few_or_many, record

from jaxsmooth.theory import block_of
from jaxsmooth.theory.block import linearisation
from jaxsmooth.types import Block

TOKENS, DIM, HEADS, HEAD, WIDE, LAYERS = 5, 6, 2, 3, 8, 3
EPS = 1e-3
PHI = {
    "gelu": (functools.partial(jax.nn.gelu, approximate=False), lambda x: x * scipy.special.ndtr(x)),
    "relu": (jax.nn.relu, lambda x: np.maximum(x, 0)),
    "silu": (jax.nn.silu, lambda x: x * scipy.special.expit(x)),
}
MASKS = {
    "common": np.ones((TOKENS, TOKENS), bool),
    "causal": np.tri(TOKENS, dtype=bool),
    "window": np.abs(np.subtract.outer(np.arange(TOKENS), np.arange(TOKENS))) <= 1,
}


def random_blocks(seed: int, layers: int = LAYERS, size: float = 1.0) -> Block:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return size * rng.standard_normal((layers, *shape)) / np.sqrt(shape[0])

    return block_of(
        value=draw(DIM, HEADS, HEAD),
        value_bias=draw(HEADS, HEAD),
        output=draw(HEADS, HEAD, DIM),
        output_bias=draw(DIM),
        scale_attn=1 + 0.3 * draw(DIM),
        bias_attn=draw(DIM),
        up=draw(DIM, WIDE),
        up_bias=draw(WIDE),
        down=draw(WIDE, DIM),
        down_bias=draw(DIM),
        scale_mlp=1 + 0.3 * draw(DIM),
        bias_mlp=draw(DIM),
    )


def run_block(block: Block, x: np.ndarray, allowed: np.ndarray, phi, eps: float, seed: int = 0) -> np.ndarray:
    """A post-LN block with real, input-dependent attention, in numpy."""
    query, key, bias = np.random.default_rng(seed).standard_normal((3, DIM, HEADS, HEAD))
    asked = np.einsum("td,dnh->nth", x, query) + bias[0][:, None]
    logits = asked @ np.einsum("sd,dnh->nhs", x, key)
    attn = scipy.special.softmax(np.where(allowed, logits, -np.inf), axis=-1)
    values = np.einsum("sd,dnh->nsh", x, block.attn.value.kernel) + block.attn.value.bias[:, None]
    u = x + np.einsum("nts,nsh,nhd->td", attn, values, block.attn.output.kernel) + block.attn.output.bias
    y = normalised(u, eps)[0] * block.norm_attn.scale + block.norm_attn.bias
    z = y + phi(y @ block.up.kernel + block.up.bias) @ block.down.kernel + block.down.bias
    return normalised(z, eps)[0] * block.norm_mlp.scale + block.norm_mlp.bias


def layer(blocks: Block, k: int) -> Block:
    return jax.tree.map(lambda leaf: leaf[k], blocks)


@functools.lru_cache
def compiled(name: str, eps: float):
    return jax.jit(lambda block, row: linearisation.local_law(block, row, PHI[name][0], eps))


step = jax.jit(linearisation.local_step)
ALL = np.ones(TOKENS, bool)


@pytest.mark.parametrize("name", PHI)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("eps", [0.0, EPS])
def test_finite_differences_agree_to_first_order(name, mask, eps):
    """The relative error is O(size of the deviation): ten times smaller deviations, ten times smaller error."""
    rng = np.random.default_rng(0)
    for k in range(5):
        block, row = layer(random_blocks(k), 0), 2 * rng.standard_normal(DIM)
        law = compiled(name, eps)(block, row)
        direction = rng.standard_normal((TOKENS, DIM))
        predicted = np.asarray(step(direction, law, MASKS[mask], ALL))
        at_consensus = run_block(block, np.tile(row, (TOKENS, 1)), MASKS[mask], PHI[name][1], eps)
        np.testing.assert_allclose(at_consensus, np.tile(law.row, (TOKENS, 1)), rtol=1e-10, atol=1e-10)
        errors = []
        for size in (1e-3, 1e-4, 1e-5):
            moved = run_block(block, row + size * direction, MASKS[mask], PHI[name][1], eps)
            found = centring(TOKENS) @ moved / size
            errors.append(np.linalg.norm(found - predicted) / np.linalg.norm(predicted))
        assert errors[0] < 0.5
        for coarse, fine in itertools.pairwise(errors):
            assert fine < 0.15 * coarse + 1e-8


@few_or_many(1000, 100_000)
def test_the_matrix_of_many_blocks(seed, cases):
    """M in closed form against numpy's central differences of the block on one token, for many blocks."""
    blocks = random_blocks(seed, cases)
    rows = 2 * np.random.default_rng(seed).standard_normal((cases, DIM))
    laws = jax.jit(jax.vmap(lambda b, r: linearisation.local_law(b, r, PHI["gelu"][0], EPS)))(blocks, rows)
    mixers = np.einsum("bdnh,bnhe->bde", blocks.attn.value.kernel, blocks.attn.output.kernel)
    full = (np.eye(DIM) + mixers) @ np.asarray(laws.matrix)
    size, nudges = 1e-6, np.concatenate([np.eye(DIM), -np.eye(DIM)])
    # Tokens that see themselves only: the Jacobian is (I + sum_h W_h) M.
    alone, errors = np.eye(2 * DIM, dtype=bool), np.empty(cases)
    for k in range(cases):
        ends = run_block(layer(blocks, k), rows[k] + size * nudges, alone, PHI["gelu"][1], EPS)
        jacobian = (ends[:DIM] - ends[DIM:]) / (2 * size)
        np.testing.assert_allclose(full[k], jacobian, rtol=1e-5, atol=1e-6 * np.abs(jacobian).max())
        errors[k] = np.abs(full[k] - jacobian).max() / np.abs(jacobian).max()
    record(1 + errors, np.ones(cases))


def test_attention_drops_out_for_a_common_mask_and_not_for_a_causal_one():
    block = layer(random_blocks(1), 0)
    value = jax.tree.map(lambda leaf: 10 * leaf, block.attn.value)
    stronger = dataclasses.replace(block, attn=dataclasses.replace(block.attn, value=value))
    row, direction = np.ones(DIM) + np.arange(DIM), np.random.default_rng(0).standard_normal((TOKENS, DIM))
    law = compiled("gelu", 0.0)(block, row)
    other = law._replace(mixer=10 * law.mixer)
    for mask, same in (("common", True), ("causal", False)):
        found, changed = (np.asarray(step(direction, own, MASKS[mask], ALL)) for own in (law, other))
        assert np.allclose(found, changed) == same
    assert not np.allclose(law.matrix, compiled("gelu", 0.0)(stronger, row).matrix)


def dense(laws: linearisation.LocalLaw, allowed: np.ndarray) -> np.ndarray:
    """The linear map of all layers on deviations of all tokens, by applying it to a basis."""
    maps = []
    for k in range(laws.matrix.shape[0]):
        own = linearisation.LocalLaw(*(np.asarray(leaf)[k] for leaf in laws))
        maps.append([np.asarray(step(e.reshape(TOKENS, DIM), own, allowed, ALL)).ravel() for e in np.eye(TOKENS * DIM)])
    return np.linalg.multi_dot(np.array(maps))


laws_of = jax.jit(lambda blocks, row: linearisation.local_laws(blocks, row, PHI["gelu"][0], EPS))
exponent, growth = jax.jit(linearisation.local_exponent), jax.jit(linearisation.local_growth)


@pytest.mark.parametrize("seed", range(4))
def test_the_exponent_is_that_of_the_dense_map(seed):
    """Common mask: mu = 0. Causal: the largest over mu = 1/2, ..., 1/n. Against numpy, in all n d dimensions."""
    laws = laws_of(random_blocks(seed), np.arange(DIM) - 2.0)
    for mask, values in (("common", [0.0]), ("causal", [1 / k for k in range(2, TOKENS + 1)])):
        expected = np.log(np.abs(np.linalg.eigvals(dense(laws, MASKS[mask]))).max()) / LAYERS
        found = max(float(exponent(laws, jnp.array(mu))) for mu in values)
        assert found == pytest.approx(expected, abs=1e-6)


def test_iterated_blocks_follow_the_exponent():
    """One block over and over, from next to its fixed row: d_M shrinks or grows as exp(exponent) per pass."""
    blocks, row = random_blocks(3, 1, size=0.7), np.arange(DIM) - 2.0
    for _ in range(2000):
        row = np.asarray(laws_of(blocks, row).row[0])
    laws = laws_of(blocks, row)
    np.testing.assert_allclose(laws.row[0], row, atol=1e-9)
    x = row + 1e-4 * np.random.default_rng(0).standard_normal((TOKENS, DIM))
    sizes = []
    for _ in range(60):
        x = run_block(layer(blocks, 0), x, MASKS["common"], PHI["gelu"][1], EPS)
        deviation = centring(TOKENS) @ x
        sizes.append(np.log(np.linalg.norm(deviation)))
        x = row + deviation * 1e-4 / np.linalg.norm(deviation)
    passes = np.array(sizes[20:]) - np.log(1e-4)
    assert passes.mean() == pytest.approx(float(exponent(laws, jnp.array(0.0))), abs=0.02)


def test_growth_bounds_one_pass():
    laws = laws_of(random_blocks(5), np.arange(DIM) - 2.0)
    product = np.linalg.multi_dot(np.asarray(laws.matrix))
    assert float(growth(laws, jnp.array(0.0))) == pytest.approx(np.log(np.linalg.norm(product)))
    assert float(growth(laws, jnp.array(0.0))) >= LAYERS * float(exponent(laws, jnp.array(0.0)))


def test_padding_changes_nothing():
    laws = laws_of(random_blocks(6), np.arange(DIM) - 2.0)
    law = linearisation.LocalLaw(*(np.asarray(leaf)[0] for leaf in laws))
    direction = np.random.default_rng(0).standard_normal((TOKENS, DIM))
    mask = np.arange(TOKENS) < 3
    garbage = np.where(mask[:, None], direction, 1e6)
    for allowed in MASKS.values():
        padded = np.asarray(step(garbage, law, allowed, mask))
        bare = np.asarray(step(direction[:3], law, allowed[:3, :3], np.ones(3, bool)))
        np.testing.assert_allclose(padded[:3], bare, rtol=1e-12, atol=1e-12)
        assert np.all(padded[3:] == 0)
