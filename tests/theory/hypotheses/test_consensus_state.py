"""Fixed states of equal tokens: known ones on both sides of 1, random blocks against jax's derivative and iteration."""

import jax
import numpy as np
import pytest
from flint import arb
from support.hypotheses import PATTERN, bare_block

from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.linalg.intervals import Ball
from jaxsmooth.theory import block_of, local_law
from jaxsmooth.theory.hypotheses.consensus_state import EqualTokenMap, enclosed_slopes
from jaxsmooth.theory.theorems.exact_block import Architecture


def random_block(rng: np.random.Generator, width: int = 6, units: int = 10):
    """Weights of a trained block's size, and shifts that keep the map of one row from being degenerate."""
    of = lambda *shape: 0.3 * rng.standard_normal(shape)  # noqa: E731
    shifts = {name: of(width) for name in ("output_bias", "bias_attn", "down_bias")}
    return block_of(
        *(of(width, 2, 3), of(2, 3, width), 1 + of(width), of(width, units), of(units, width), 1 + of(width)),
        **shifts,
        value_bias=of(2, 3),
        up_bias=of(units),
        bias_mlp=2 * rng.standard_normal(width),
    )


def state_of(block, start, activation="relu", eps=0.0):
    token_map = EqualTokenMap([block], Architecture(eps, activation))
    end = token_map.orbit(start[None])[0]
    return token_map.fixed_state(end) if np.all(np.isfinite(end)) else None


@pytest.mark.parametrize(
    ("mixer", "shift", "radius"), [(0.0, 0.5, 2 / 3), (-0.5, 0.5, 4 / 3), (-0.25, 3.0, 1 / 3), (-0.75, 1.0, 2.0)]
)
def test_known_states(mixer, shift, radius):
    """x* = (1 + shift) p has std_1 = (1 + mixer)(1 + shift) and std_2 = 1, so rho(M) is 1 over the first."""
    found = state_of(bare_block(shift=shift, mixer=mixer), PATTERN)
    assert np.linalg.norm(found.row - (1 + shift) * PATTERN) <= 2 * found.distance
    assert found.radius.lower <= radius <= found.radius.upper
    assert found.radius.upper - found.radius.lower < 1e-6


def test_a_radius_of_exactly_1_is_open():
    found = state_of(bare_block(shift=1.0, mixer=-0.5), PATTERN)
    assert found.radius.lower < 1 < found.radius.upper


def test_no_state_where_the_tokens_keep_moving():
    """With the shift against the pattern, -1.5 of it, a row jumps from one side to the other for ever."""
    assert state_of(bare_block(gain=-1.0, shift=0.2), PATTERN) is None


def test_a_line_of_fixed_states_is_not_proved():
    """Both LayerNorms and nothing else: every normed row is fixed, none is isolated."""
    assert state_of(bare_block(), PATTERN) is None


@pytest.mark.parametrize(
    "activation", ["gelu", *(pytest.param(name, marks=pytest.mark.long) for name in ("gelu_tanh", "silu"))]
)
def test_random_blocks_against_the_local_law(activation):
    rng, proved = np.random.default_rng(0), 0
    for _ in range(3):
        block = random_block(rng)
        found = state_of(block, rng.standard_normal(6), activation, 1e-5)
        if found is None:
            continue
        proved += 1
        law = local_law(block, found.row, ACTIVATIONS[activation].function, 1e-5)
        assert np.linalg.norm(law.row - found.row) < 1e-12
        radius = np.max(np.abs(np.linalg.eigvals(np.asarray(law.matrix))))
        assert found.radius.lower <= radius <= found.radius.upper
        assert found.radius.upper - found.radius.lower < 1e-4
    assert proved >= 2


def iterated(block, hidden, steps):
    """d_M after a post-LN block with uniform attention is applied again and again, in plain numpy, over what it was."""

    def norm(x, part):
        y = x - x.mean(1, keepdims=True)
        return y / np.sqrt((y**2).mean(1, keepdims=True) + 1e-5) * part.scale + part.bias

    start = np.linalg.norm(hidden - hidden.mean(0))
    for _ in range(steps):
        values = np.einsum("td,dnh->tnh", hidden, block.attn.value.kernel) + block.attn.value.bias
        mixed = np.einsum("nh,nhd->d", values.mean(0), block.attn.output.kernel) + block.attn.output.bias
        normed = norm(hidden + mixed, block.norm_attn)
        wide = normed @ block.up.kernel + block.up.bias
        hidden = norm(normed + np.maximum(wide, 0) @ block.down.kernel + block.down.bias, block.norm_mlp)
    return np.linalg.norm(hidden - hidden.mean(0)) / start


def test_tokens_next_to_an_attracting_state_meet_and_others_part():
    rng, seen = np.random.default_rng(3), set()
    for case in range(8):
        block = random_block(rng)
        if case % 2:  # attention that takes most of the mean away leaves a small std, which magnifies what differs
            block.attn.value.kernel = -0.8 * np.eye(6).reshape(6, 2, 3)
            block.attn.output.kernel = np.eye(6).reshape(2, 3, 6)
        found = state_of(block, rng.standard_normal(6), "relu", 1e-5)
        if found is None or found.radius.lower < 1 <= found.radius.upper:
            continue
        attracts = bool(found.radius.upper < 1)
        noise = 1e-9 * rng.standard_normal((3, 6))
        moved = iterated(block, found.row + noise, 30)
        tended = moved ** (1 / 30)
        assert (tended < 1) == attracts, (tended, found.radius)
        seen.add(attracts)
    assert seen == {True, False}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_slopes_against_arb(activation):
    """phi' of points of the interval, by Arb's differences in 300 bits."""
    from flint import ctx

    from jaxsmooth.theory.certify.arb_matrices import BITS, FUNCTIONS

    ctx.prec = BITS
    rng, step = np.random.default_rng(0), arb(2) ** -100
    points = np.concatenate([rng.uniform(-9, 9, 60), rng.uniform(-40, 40, 30), [0.0]])
    radii = 10.0 ** rng.uniform(-18, -1, len(points))
    found = enclosed_slopes(Ball(points[None], radii[None]), activation)
    phi = FUNCTIONS[activation]
    for point, radius, mid, rad in zip(points, radii, found.mid[0], found.rad[0], strict=True):
        for place in (point - radius, point, point + radius):
            slope = (phi(arb(place) + step) - phi(arb(place) - step)) / (2 * step)
            assert abs(slope - arb(float(mid))) <= arb(float(rad)) + arb(2) ** -90


def test_shared_blocks_make_a_stack():
    """Twice the same block: the state is that of one, and rho(M) is squared."""
    block = bare_block(shift=0.5)
    one = state_of(block, PATTERN)
    token_map = EqualTokenMap([block, block], Architecture(0.0, "relu"))
    two = token_map.fixed_state(token_map.orbit(PATTERN[None])[0])
    assert abs(two.radius.upper - one.radius.upper**2) < 1e-6
    assert jax.tree.leaves(two)  # a pytree, like every NamedTuple here
