"""Fusion of layers: formulas, the theorem of what can leave consensus, training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import CONFIG, random_batch, random_model

import jaxsmooth
from jaxsmooth import theory
from jaxsmooth.bert import fusion
from jaxsmooth.errors import OptionError, ShapeError

L, B, T, D = 4, 2, 6, 5
RANDOM = np.random.default_rng(0)
HIDDEN = RANDOM.standard_normal((L, B, T, D))
MASK = np.arange(T)[None] < np.array([[6], [3]])
SMALL = dataclasses.replace(CONFIG, width=D, heads=1, layers=L)


def gate(weight, normalisation, layers=tuple(range(L))):
    return fusion.GateFusion(jnp.asarray(weight), layers, normalisation)


def some_fusions():
    kernel = jnp.asarray(RANDOM.standard_normal((2, D, 3)))
    weight = RANDOM.standard_normal(D)
    return {
        "weights": fusion.WeightedFusion(jnp.asarray(RANDOM.standard_normal(3)), (0, 1, 3)),
        "concat": fusion.ConcatFusion(kernel, (1, 3)),
        "max": fusion.MaxFusion((0, 2, 3)),
        "softmax": gate(weight, "softmax"),
        "sigmoid": gate(weight, "sigmoid", (0, 3)),
    }


FUSIONS = some_fusions()


def by_hand(one, token: np.ndarray):
    """One token's [L D] fused, from the definition."""
    rows = token[list(one.layers)]
    if isinstance(one, fusion.ConcatFusion):
        return np.concatenate(rows) @ np.concatenate(list(one.kernel)), None
    if isinstance(one, fusion.MaxFusion):
        return rows.max(axis=0), None
    if isinstance(one, fusion.WeightedFusion):
        return sum(a * row for a, row in zip(np.asarray(one.weight), rows, strict=True)), np.asarray(one.weight)
    scores = rows @ np.asarray(one.weight)
    gates = np.exp(scores) / np.exp(scores).sum() if one.normalisation == "softmax" else 1 / (1 + np.exp(-scores))
    return gates @ rows, gates


@pytest.mark.parametrize("name", FUSIONS)
def test_every_token_is_fused_as_defined(name):
    one = FUSIONS[name]
    fused, gates = fusion.fuse(one, jnp.asarray(HIDDEN))
    for b, t in np.ndindex(B, T):
        expected, weights = by_hand(one, HIDDEN[:, b, t])
        np.testing.assert_allclose(fused[b, t], expected, rtol=0, atol=1e-13)
        assert (gates is None) == (weights is None)
        if weights is not None:
            np.testing.assert_allclose(gates[:, b, t], weights, rtol=0, atol=1e-14)


@jax.jit
def statements(hidden, kernel, weight):
    """Each fusion's statement, and what the fusion computes."""
    mask, every = jnp.asarray(MASK), tuple(range(L))
    soft, weights = fusion.fuse(gate(weight, "softmax"), hidden)
    return [
        (theory.fusion_concat(hidden, kernel, mask), fusion.fuse(fusion.ConcatFusion(kernel, every), hidden)[0]),
        (theory.fusion_max(hidden, mask), fusion.fuse(fusion.MaxFusion(every), hidden)[0]),
        (theory.fusion_gate(hidden, weights, mask), soft),
    ]


@given(st.integers(0, 2**32 - 1), st.floats(-2, 2))
def test_the_theorem_holds_for_what_is_computed(seed, log_scale):
    """Concatenation and maximum: d_M <= ||W|| S and S; gates: with the term that lets them out."""
    random = np.random.default_rng(seed)
    hidden = jnp.asarray(10**log_scale * random.standard_normal((L, B, T, D)) + random.standard_normal((L, 1, 1, D)))
    kernel, weight = jnp.asarray(random.standard_normal((L, D, D))), random.standard_normal(D)
    for statement, fused in statements(hidden, kernel, jnp.asarray(weight)):
        np.testing.assert_allclose(by_definition(fused), statement.lhs, rtol=1e-9)
        assert np.all(statement.lhs <= statement.rhs * (1 + 1e-9))


def by_definition(fused) -> list[float]:
    """d_M of every sentence, by the definition."""
    return [float(np.linalg.norm(x[m] - x[m].mean(axis=0))) for x, m in zip(np.asarray(fused), MASK, strict=True)]


def test_of_layers_in_consensus_only_gates_differing_by_token_leave_it():
    """The counterexample: H_1 = 1, H_2 = 2, gates .1, .5, .9 give d_M = .566; concatenation and maximum give 0."""
    ones = jnp.ones((1, 3, 1))
    hidden, mask = jnp.stack([ones, 2 * ones]), jnp.ones((1, 3), bool)
    share = jnp.array([0.1, 0.5, 0.9])[None]
    found = theory.fusion_gate(hidden, jnp.stack([share, 1 - share]), mask)
    np.testing.assert_allclose([found.lhs[0], found.rhs[0]], np.sqrt(0.32), rtol=1e-12)  # .566
    matrices, numbers = jnp.array([[[0.3]], [[-2.0]]]), jnp.array([0.3, -2.0])
    for one in (
        *(fusion.MaxFusion((0, 1)), fusion.ConcatFusion(matrices, (0, 1)), fusion.WeightedFusion(numbers, (0, 1))),
    ):
        assert theory.subspace_distance(fusion.fuse(one, hidden)[0], mask)[0] < 1e-14


@pytest.mark.parametrize("normalisation", ["softmax", "sigmoid"])
def test_scores_of_equal_tokens_are_equal_so_this_gate_stays_too(normalisation):
    """A learned score is a function of the token, so it cannot tell equal tokens apart; it amplifies what differs."""
    flat = jnp.asarray(np.broadcast_to(RANDOM.standard_normal((L, B, 1, D)), (L, B, T, D)))
    fused, _ = fusion.fuse(gate(RANDOM.standard_normal(D), normalisation), flat)
    assert np.all(theory.subspace_distance(fused, jnp.asarray(MASK)) < 1e-13)
    # A step of 1e-6 per token in a channel that is otherwise 0, another way in every other layer, read by a large w.
    channel = np.eye(D)[0]
    step = 1e-6 * (-1.0) ** np.arange(L)[:, None, None, None] * np.arange(T)[None, None, :, None]
    nearly = flat.at[..., 0].set(0) + jnp.asarray(step * channel)
    apart, _ = fusion.fuse(gate(1e6 * channel, normalisation), nearly)
    layers = theory.layers_distance(nearly, jnp.asarray(MASK))
    assert np.all(theory.subspace_distance(apart, jnp.asarray(MASK)) > 1e4 * layers)


@given(st.integers(0, 2**32 - 1))
def test_gates_on_consensus_have_rank_at_most_the_number_of_layers(seed):
    random = np.random.default_rng(seed)
    layers = 2
    rows = random.standard_normal((layers, 1, D)) * np.ones((1, T, 1))
    gates = random.uniform(size=(layers, T))
    values = np.linalg.svd(np.einsum("lt,ltd->td", gates, rows), compute_uv=False)
    assert values[layers] < 1e-12 * values[0]


def test_padding_does_not_leak():
    other = np.where(MASK[None, ..., None], HIDDEN, 1e6)
    for one in FUSIONS.values():
        a, b = (np.asarray(fusion.fuse(one, jnp.asarray(x))[0])[MASK] for x in (HIDDEN, other))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("kind", "normalisation"), [("weights", "softmax"), ("concat", "softmax"), ("gate", "softmax"), ("gate", "sigmoid")]
)
def test_it_trains(kind, normalisation):
    """Adam fits the fusion of a frozen encoder to a target that its kind can express."""
    model, batch = random_model(), random_batch()
    hidden = jaxsmooth.encode(model, batch, collect=lambda trace: trace.hidden)[1]
    start = fusion.init_fusion(
        kind, CONFIG, jax.random.key(0), layers=[0, 2], normalisation=normalisation, dtype=jnp.float64
    )
    goal = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * RANDOM.standard_normal(leaf.shape)), start)
    target = fusion.fuse(goal, hidden)[0]
    rate = optax.adam(0.03)

    def loss(one):
        return jnp.mean((fusion.fuse(one, hidden)[0] - target) ** 2)

    @jax.jit
    def train(one):
        def step(carry, _):
            one, state = carry
            value, slope = jax.value_and_grad(loss)(one)
            change, state = rate.update(slope, state)
            return (optax.apply_updates(one, change), state), value

        return jax.lax.scan(step, (one, rate.init(one)), length=200)

    with jax.numpy_dtype_promotion("standard"):  # Adam's step count is an integer
        (trained, _), losses = train(start)
    assert losses[-1] < 1e-2 * losses[0]
    assert trained.layers == (0, 2)
    slope = jax.grad(loss)(start)
    direction = jax.tree.map(lambda leaf: jnp.asarray(RANDOM.standard_normal(leaf.shape)), start)
    numeric = (
        loss(jax.tree.map(lambda a, d: a + 1e-6 * d, start, direction))
        - loss(jax.tree.map(lambda a, d: a - 1e-6 * d, start, direction))
    ) / 2e-6
    along = sum(jnp.sum(a * d) for a, d in zip(jax.tree.leaves(slope), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(along, numeric, rtol=1e-6)


def test_untrained_it_is_near_the_mean():
    hidden = jnp.asarray(HIDDEN)
    mean = HIDDEN.mean(axis=0)
    for kind in ("weights", "gate"):
        one = fusion.init_fusion(kind, SMALL, jax.random.key(0), dtype=jnp.float64)
        np.testing.assert_allclose(fusion.fuse(one, hidden)[0], mean, rtol=0, atol=1e-14)
    one = fusion.init_fusion("gate", SMALL, jax.random.key(0), normalisation="sigmoid", dtype=jnp.float64)
    np.testing.assert_allclose(fusion.fuse(one, hidden)[0], mean * L / 2, rtol=0, atol=1e-14)
    one = fusion.init_fusion("concat", SMALL, jax.random.key(0), dtype=jnp.float64)
    # Twenty normals of std .02 on numbers of size 1: the sum's std is about .09.
    np.testing.assert_allclose(fusion.fuse(one, hidden)[0], mean, rtol=0, atol=0.5)


def test_bfloat16_layers_have_float32_gates():
    fused, gates = fusion.fuse(gate(np.ones(D), "softmax"), jnp.asarray(HIDDEN, jnp.bfloat16))
    assert (fused.dtype, gates.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sum"}, "fusion must be one of weights, concat, max, gate; got 'sum'"),
        ({"kind": "gate", "normalisation": "none"}, "normalisation must be"),
        ({"kind": "max", "layers": []}, r"layers must ascend within 0..3; got \[\]"),
        ({"kind": "max", "layers": [1, 4]}, r"got \[1, 4\]"),
        ({"kind": "max", "layers": [2, 1]}, r"got \[2, 1\]"),
        ({"kind": "max", "layers": [-1]}, r"got \[-1\]"),
    ],
)
def test_a_wrong_fusion_is_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        fusion.init_fusion(config=SMALL, key=jax.random.key(0), **arguments)


def test_hidden_states_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="at least 4; got 3"):
        fusion.fuse(FUSIONS["max"], jnp.asarray(HIDDEN[:3]))
    for name in ("concat", "softmax"):
        with pytest.raises(ShapeError, match="must have width 5, the fusion's; got 4"):
            fusion.fuse(FUSIONS[name], jnp.asarray(HIDDEN[..., :4]))
