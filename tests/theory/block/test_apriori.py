"""Attention's constants from logits, weights and the tokens' diameter; cubic collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.matrices import PADDED, TOKENS, centring, normalised
from support.statements import CASES, MANY, assert_at_most, assert_holds, few_or_many

from jaxsmooth.theory import diameter as diameter_of
from jaxsmooth.theory import logit_spread
from jaxsmooth.theory.block import apriori

# By XLA's older code generator without optimisations 3 of 512 mixing rates come out as NaN, though the eigenvalue
# search gives the right numbers when it is compiled by itself. Why is not known.
pytestmark = pytest.mark.usefixtures("optimised")

HEADS, DIM, HEAD = 2, 5, 3
GROUPS = 16  # weights are shared by CASES / GROUPS sentences
coupling, mixer = jax.jit(jax.vmap(apriori.coupling_norms)), jax.jit(jax.vmap(apriori.mixer_norms))
oscillation, diameter = jax.jit(logit_spread), jax.jit(diameter_of)
ergodicity = jax.jit(apriori.oscillation_ergodicity)
weights_bound = jax.jit(jax.vmap(apriori.weight_oscillation))
theorem = jax.jit(jax.vmap(apriori.apriori_mixing_rate))
tanh_form, cubic = jax.jit(jax.vmap(apriori.tanh_collapse)), jax.jit(jax.vmap(apriori.cubic_collapse))
floor = jax.jit(apriori.shi2022_rate_floor)
depth = jax.jit(apriori.cubic_collapse_depth)


class Case:
    """Real attention with query, key and output biases on tokens of every spread: arrays [GROUPS cases/GROUPS ...]."""

    def __init__(self, seed: int, cases: int, tokens: int = PADDED):
        rng = np.random.default_rng(seed)
        each = cases // GROUPS
        self.query, self.key, self.value = rng.standard_normal((3, GROUPS, DIM, HEADS, HEAD))
        self.output = rng.standard_normal((GROUPS, HEADS, HEAD, DIM))
        spread = 10 ** rng.uniform(-4, 0.7, (GROUPS, each, 1, 1))
        self.hidden = spread * rng.standard_normal((GROUPS, each, tokens, DIM)) + rng.standard_normal(
            (GROUPS, each, 1, DIM)
        )
        self.mask = np.broadcast_to(
            np.arange(tokens) < rng.integers(2, tokens + 1, (GROUPS, each, 1)), (GROUPS, each, tokens)
        )
        self.hidden = np.where(self.mask[..., None], self.hidden, 1e6)
        bias = rng.standard_normal((2, GROUPS, 1, HEADS, 1, HEAD))
        real = np.where(self.mask[..., None], self.hidden, 0)
        asked = np.einsum("gbtd,gdnh->gbnth", real, self.query) + bias[0]
        offered = np.einsum("gbtd,gdnh->gbnth", real, self.key) + bias[1]
        self.logits = asked @ np.swapaxes(offered, -1, -2) / np.sqrt(HEAD)
        hidden_keys = np.where(self.mask[:, :, None, None], self.logits, -np.inf)
        self.attn = scipy.special.softmax(hidden_keys, axis=-1)
        weight = np.einsum("gdnh,gnhe->gnde", self.value, self.output)
        self.mixed = np.einsum("gbnts,gbsd,gnde->gbte", self.attn, real, weight) + rng.standard_normal(DIM)
        self.couplings = np.linalg.norm(np.einsum("gdnh,genh->gnde", self.query, self.key), 2, axis=(2, 3)) / np.sqrt(
            HEAD
        )
        self.mixers = np.linalg.norm(weight, 2, axis=(2, 3))


ONE = Case(0, CASES)


def test_the_norms_are_numpys():
    np.testing.assert_allclose(coupling(ONE.query, ONE.key), ONE.couplings, rtol=1e-9)
    np.testing.assert_allclose(mixer(ONE.value, ONE.output), ONE.mixers, rtol=1e-9)


def test_the_diameter_and_the_oscillation_by_definition():
    found, spans = diameter(ONE.hidden, ONE.mask), oscillation(ONE.logits, ONE.mask)
    for g, b in ((0, 0), (3, 7), (15, 50)):
        real = ONE.mask[g, b]
        x, logits = ONE.hidden[g, b, real], ONE.logits[g, b][:, real][:, :, real]
        assert float(found[g, b]) == pytest.approx(np.linalg.norm(x[:, None] - x[None], axis=2).max(), rel=1e-12)
        rows = logits[:, :, None] - logits[:, None]
        every = rows[..., :, None] - rows[..., None, :]
        np.testing.assert_allclose(spans[g, b], every.max(axis=(1, 2, 3, 4)), rtol=1e-9, atol=1e-12)


def check_ergodicity(case: Case) -> None:
    assert_holds(ergodicity(case.attn, case.logits, case.mask), rtol=1e-6)


def check_weights(case: Case) -> None:
    """The oscillation is that of the logits with biases, too: biases cancel."""
    found = weights_bound(case.query, case.key, case.hidden, case.mask)
    assert_holds(found)
    spread = np.asarray(diameter(case.hidden, case.mask))[..., None] ** 2
    np.testing.assert_allclose(found.lhs, oscillation(case.logits, case.mask), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.rhs, case.couplings[:, None] * spread, rtol=1e-8)


def check_theorem(case: Case) -> None:
    found = theorem(case.attn, case.hidden, case.couplings, case.mask)
    # sqrt(lambda) of nearly uniform attention is known to rounding of 1, not of itself.
    assert_at_most(found, 1e-14, recorded=1e-6)
    # Where weights underflow to 0, nothing can be said from them.
    assert np.asarray(found.applicable).mean() > 0.95


def check_collapse(case: Case) -> None:
    arguments = (case.hidden, case.mixed, case.attn, case.couplings, case.mixers, case.mask)
    sharp, plain = tanh_form(*arguments), cubic(*arguments)
    for found in (sharp, plain):
        assert np.asarray(found.applicable).mean() > 0.95
        assert_at_most(found, 1e-13, recorded=1e-4)
    assert np.all(sharp.rhs <= np.asarray(plain.rhs) * (1 + 1e-12))
    spread = np.asarray(diameter(case.hidden, case.mask))
    expected = np.sum(case.mixers[:, None] * case.couplings[:, None], axis=-1) / 4 * spread**3
    np.testing.assert_allclose(plain.rhs, expected, rtol=1e-9)


@few_or_many(CASES, MANY)
@pytest.mark.parametrize("check", [check_ergodicity, check_weights, check_theorem, check_collapse])
def test_it_holds(check, seed, cases):
    check(Case(seed, cases))


def test_the_tanh_bound_is_attained():
    """Two keys, logits +-a for one query and -+a for the other: Delta = 4 a, tau = tanh a."""
    for a in (0.1, 1.0, 3.0):
        logits = np.array([[a, -a], [-a, a]])
        found = ergodicity(scipy.special.softmax(logits, axis=1), logits, np.ones(2, bool))
        assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)


def test_every_bound_of_two_opposite_tokens_is_attained():
    """x = +-c, one head, all weights 1: Delta, sqrt(lambda) and the diameter are all what the bounds say."""
    one = np.ones((1, 1, 1, 1))
    for c in (0.05, 0.5, 1.0):
        x = np.array([[[[c], [-c]]]])
        attn = scipy.special.softmax(x @ np.swapaxes(x, -1, -2), axis=-1)
        mask = np.ones((1, 1, 2), bool)
        statements = (
            weights_bound(one, one, x, mask),
            theorem(attn[:, :, None], x, np.ones((1, 1)), mask),
            tanh_form(x, attn @ x, attn[:, :, None], np.ones((1, 1)), np.ones((1, 1)), mask),
        )
        for found in statements:
            assert found.applicable.all()
            assert float(found.lhs.squeeze()) == pytest.approx(float(found.rhs.squeeze()), rel=1e-10)


def test_the_cubic_constant_cannot_be_lowered():
    """Three layers of pure attention from x = +-1/2: ratio 1 to the tanh form, and 1 in the limit to b D^3."""
    x, mask = np.array([[[[0.5], [-0.5]]]]), np.ones((1, 1, 2), bool)
    one = np.ones((1, 1))
    ratios = []
    for _ in range(3):
        attn = scipy.special.softmax(x @ np.swapaxes(x, -1, -2), axis=-1)
        found = cubic(x, attn @ x, attn[:, :, None], one, one, mask)
        ratios.append(float(found.lhs.squeeze() / found.rhs.squeeze()))
        x = attn @ x
    assert ratios == sorted(ratios)
    assert ratios[0] == pytest.approx(np.tanh(0.25) / 0.25, rel=1e-12)
    assert ratios[2] == pytest.approx(1, abs=1e-4)


def test_depth():
    """The closed form is the recursion D <- b D^3, and above b^(-1/2) it promises nothing."""
    rng = np.random.default_rng(0)
    b, start = 10 ** rng.uniform(-2, 2, CASES), 10 ** rng.uniform(-2, 1, CASES)
    value = start
    for layers in range(5):
        found = np.asarray(depth(b, start, np.full(CASES, layers)))
        tame = np.isfinite(value) & (value > 1e-300) & (value < 1e300)
        np.testing.assert_allclose(found[tame], value[tame], rtol=1e-9)
        with np.errstate(over="ignore", under="ignore"):
            value = b * value**3
    assert np.all((found < start) == (np.sqrt(b) * start < 1))


def test_layers_of_pure_attention_collapse_at_least_cubically():
    case = Case(2, CASES)
    real = np.where(case.mask[..., None], case.hidden, 0)
    first = np.asarray(diameter(case.hidden, case.mask))
    b = np.broadcast_to(np.sum(case.couplings * case.mixers, axis=1)[:, None] / 4, first.shape)
    x = real
    for layers in range(1, 4):
        logits = np.einsum("gbtd,gdnh,genh,gbse->gbnts", x, case.query, case.key, x) / np.sqrt(HEAD)
        attn = scipy.special.softmax(np.where(case.mask[:, :, None, None], logits, -np.inf), axis=-1)
        x = np.einsum("gbnts,gbsd,gdnh,gnhe->gbte", attn, x, case.value, case.output)
        most = np.asarray(depth(b, first, np.full(first.shape, layers)))
        found = np.asarray(diameter(x, case.mask))
        size = np.abs(x).max(axis=(2, 3))
        assert np.all(found <= most * (1 + 1e-9) + 1e-13 * size)
        assert (np.sqrt(b) * first < 1).mean() > 0.2


def test_causal_masks_do_not_apply():
    """Delta is infinite: two tokens, the first sees itself only, and mixing keeps half of any distance."""
    x = np.array([[[[1e-3], [-1e-3]]]])
    logits = np.where(np.tri(2, dtype=bool), x @ np.swapaxes(x, -1, -2), -np.inf)
    attn = scipy.special.softmax(logits, axis=-1)
    mask, one = np.ones((1, 1, 2), bool), np.ones((1, 1))
    assert np.isinf(oscillation(logits, mask)).all()
    assert not ergodicity(attn, logits, mask).applicable.any()
    for found in (
        theorem(attn[:, :, None], x, one, mask),
        cubic(x, attn @ x, attn[:, :, None], one, one, mask),
        tanh_form(x, attn @ x, attn[:, :, None], one, one, mask),
    ):
        assert not found.applicable.any()
        assert np.all(np.asarray(found.lhs) > 1e3 * np.asarray(found.rhs))


def blocks_of_the_paper(
    x: np.ndarray, attn: np.ndarray, mixers: np.ndarray, up: np.ndarray, down: np.ndarray, gelu: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Unit gains, no biases, in numpy: (s, sqrt(lambda), smallest std at either LayerNorm), each [cases]."""
    u = x + np.einsum("bhts,bsd,bhde->bte", attn, x, mixers)
    y, std_attn = normalised(u, 0.0)
    a = y @ up
    z = y + np.where(gelu[:, None, None], a * scipy.special.ndtr(a), np.maximum(a, 0)) @ down
    weights = np.concatenate([mixers, up[:, None], down[:, None]], axis=1)
    s = np.linalg.norm(weights, 2, axis=(2, 3)).max(axis=1)
    mixing = np.linalg.norm(centring(x.shape[1]) @ attn, 2, axis=(2, 3)).max(axis=1)
    least_attn, least_mlp = (std.min(axis=(1, 2)) for std in (std_attn, normalised(z, 0.0)[1]))
    return s, mixing, least_attn, least_mlp


@few_or_many(1000, 100_000)
def test_the_floor_of_the_rate(seed, cases):
    """Normalised tokens, one head or two, weights of every size, a third with W_h = s I, ReLU or GELU."""
    rng = np.random.default_rng(seed)
    n, d, least = 5, 4, 1.0
    for heads in (1, 2):
        count = cases // 2
        x = rng.standard_normal((count, n, d)) + rng.choice([0, 3], (count, 1, 1)) * rng.standard_normal((count, 1, d))
        x -= x.mean(axis=2, keepdims=True)
        x *= np.sqrt(d) / np.linalg.norm(x, axis=2, keepdims=True)
        size = 10 ** rng.uniform(-2, 1, (count, 1, 1))
        mixers = size[:, None] * rng.standard_normal((count, heads, d, d))
        mixers[::3] = (size * np.eye(d))[::3, None]
        sharp = rng.choice([0.1, 1, 5], (count, 1, 1, 1))
        attn = scipy.special.softmax(sharp * rng.standard_normal((count, heads, n, n)), axis=3)
        up, down = size * rng.standard_normal((2, count, d, d))
        s, mixing, *stds = blocks_of_the_paper(x, attn, mixers, up, down, np.arange(count) % 2 == 0)
        found = floor(s, mixing, np.array(heads), *stds)
        assert_holds(found, rtol=1e-12)
        least = min(least, float(np.min(found.lhs)))
    assert least < 0.9


def test_the_floor_is_attained_by_tokens_that_agree():
    """All tokens x, W_h = s I, and an MLP whose units are all active at x and turn it back: both stds at their most."""
    rng = np.random.default_rng(0)
    d, s, heads = 4, 0.7, 2
    x = rng.standard_normal(d)
    x = (x - x.mean()) / x.std()
    # A reflection that takes x to the direction of ones, where ReLU does nothing.
    axis = x / np.linalg.norm(x) - np.ones(d) / np.sqrt(d)
    turn = np.eye(d) - 2 * np.outer(axis, axis) / (axis @ axis)
    attn = scipy.special.softmax(rng.standard_normal((1, heads, 5, 5)), axis=3)
    mixers = np.tile(s * np.eye(d), (1, heads, 1, 1))
    parts = blocks_of_the_paper(np.tile(x, (1, 5, 1)), attn, mixers, s * turn[None], s * turn[None], np.zeros(1, bool))
    found = floor(parts[0], parts[1], np.array(heads), *parts[2:])
    assert found.applicable.all()
    assert float(found.lhs[0]) == pytest.approx(float(found.rhs[0]), rel=1e-12)


def test_the_floor_needs_its_hypotheses():
    """sigma_1 = 1 + h s and sigma_2 = 1 + s^2 at once give equality; biases or gains lift the stds beyond them."""
    s, mixing, heads = jnp.array(0.7), jnp.array(0.3), jnp.array(2)
    found = floor(s, mixing, heads, 1 + 2 * s, 1 + s**2)
    assert found.applicable
    assert float(found.lhs) == pytest.approx(float(found.rhs), rel=1e-12)
    lifted = floor(s, mixing, heads, 10 * (1 + 2 * s), 1 + s**2)
    assert not lifted.applicable
    assert float(lifted.lhs) > float(lifted.rhs)


def test_padding_changes_nothing():
    case = Case(3, 16 * GROUPS)
    short = case.mask & (np.arange(PADDED) < TOKENS)
    some = (slice(None), slice(None), slice(None, TOKENS))
    x, cut = np.where(short[..., None], case.hidden, -1e5), short[some]
    np.testing.assert_array_equal(oscillation(case.logits, short), oscillation(case.logits[..., :TOKENS, :TOKENS], cut))
    np.testing.assert_array_equal(diameter(x, short), diameter(case.hidden[some], cut))
    attn = scipy.special.softmax(np.where(short[:, :, None, None], case.logits, -np.inf), axis=-1)
    for ours, theirs in zip(
        theorem(attn, x, case.couplings, short),
        theorem(attn[..., :TOKENS, :TOKENS], case.hidden[some], case.couplings, cut),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_constants_of_large_and_small_weights_and_tokens_are_numbers(size):
    """In float32, whose squares end at 1e19: everything here is of the first or second degree."""
    case = Case(3, GROUPS)
    query, key, value, output = (np.float32(w[0]) for w in (case.query, case.key, case.value, case.output))
    for found, expected in (
        (apriori.coupling_norms(size * query, key / np.float32(size)), apriori.coupling_norms(query, key)),
        (apriori.mixer_norms(value, size * output), size * apriori.mixer_norms(value, output)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    hidden = np.float32(np.random.default_rng(4).standard_normal((4, DIM)))
    mask = np.ones(4, bool)
    plain = apriori.weight_oscillation(query, key, hidden, mask)
    large = apriori.weight_oscillation(query / np.float32(size), key, size * hidden, mask)
    for side, other in ((plain.lhs, large.lhs), (plain.rhs, large.rhs)):
        np.testing.assert_allclose(other, size * side, rtol=1e-4)
    beyond = apriori.weight_oscillation(query, key, np.float32(1e30) * hidden, mask)
    assert np.all(np.isinf(beyond.rhs))  # applicable, and no NaN
