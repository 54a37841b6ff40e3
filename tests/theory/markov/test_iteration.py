"""Iterated attention, its rates and its transients; and the compilers of three platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from support.matrices import (
    PADDED,
    TOKENS,
    attention_batch,
    closed_classes,
    padded_on_both_sides,
    window,
)
from support.statements import record

from jaxsmooth.theory import (
    Centred,
    Dense,
    Held,
    arnoldi,
    blocked_attention,
    converge,
    converge_symmetric,
    iterate,
    iterate_until,
    operator_norm,
    slem,
)
from jaxsmooth.theory.markov.verdicts import Chain, limit_verdict, observe

WIDE = 64


def test_iterate_is_the_matrix_power_and_collects():
    rng = np.random.default_rng(3)
    attn, mask = attention_batch(rng)
    hidden = rng.standard_normal((len(attn), PADDED, 2))

    @jax.jit
    @jax.vmap
    def run(attn, hidden, mask):
        return iterate(Dense(attn, mask), hidden, 7, collect=jnp.sum)

    last, sums = run(attn, hidden, mask)
    for matrix, tokens, real, found, totals in zip(attn, hidden, mask, last, sums, strict=True):
        inner, start = matrix[real][:, real], tokens[real]
        for k, total in enumerate(totals, 1):
            assert float(total) == pytest.approx((np.linalg.matrix_power(inner, k) @ start).sum(), abs=1e-12)
        np.testing.assert_allclose(found[real], np.linalg.matrix_power(inner, 7) @ start, atol=1e-13)
        np.testing.assert_array_equal(found[~real], 0)


def test_iterate_until_stops_each_of_a_batch_for_itself():
    rates = np.array([0.1, 0.5, 0.9])
    attn = np.stack([(1 - r) / 2 + r * np.eye(2) for r in rates])
    hidden = np.array([[1.0], [-1.0]])
    run = jax.jit(
        jax.vmap(lambda a, h: iterate_until(Dense(a, jnp.ones(2, bool)), h, tolerance=1e-6), in_axes=(0, None))
    )
    found = run(attn, hidden)
    # The k-th change is (1 - r) r^(k - 1) of the start.
    expected = [next(k for k in range(1, 999) if (1 - r) * r ** (k - 1) <= 1e-6) for r in rates]
    assert found.steps.tolist() == expected
    np.testing.assert_allclose(found.change, (1 - rates) * rates ** (np.array(expected) - 1), rtol=1e-6)
    swap = Dense(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones(2, bool))
    assert int(iterate_until(swap, jnp.asarray(hidden), tolerance=1e-6, max_steps=50).steps) == 50


@jax.jit(static_argnames="steps")
def converge_all(attn, hidden, mask, steps):
    return jax.vmap(lambda a, h, m: converge(a, h, m, steps=steps))(attn, hidden, mask)


def check_converge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [attention_batch(rng) for _ in range(20)]
    attn, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    hidden = rng.standard_normal((len(attn), PADDED, 3))
    found = converge_all(attn, hidden, mask, 200)
    assert np.all(found.ergodicity_held)
    # A periodic matrix, one-hot rows that form a cycle, has no limit; 200 steps cannot tell it from a slow one.
    record(np.where(found.ergodicity_held, 0.0, 2.0), np.ones(len(attn)), int(np.sum(~found.ergodicity_held)))
    periodic = np.array([not closes(a[m][:, m]) for a, m in zip(attn, mask, strict=True)])
    # The rate is that of the end: a transient or a rotation can hide a decay of less than a fifth in the last 100, and
    # then numpy's powers must show as little of it: less than 1 in 100, or less than half of the predicted ln. They
    # are off by k n eps at most, the limit by about as much. Within 1e-6 of 1 no limit is claimed, whatever a transient
    # does.
    predicted, limits = np.asarray(found.predicted_rate), np.asarray(found.predicted_limit)
    real = attn * mask[:, :, None] * mask[:, None]
    middle, end = (np.linalg.norm(np.linalg.matrix_power(real, k) @ hidden - limits, axis=(1, 2)) for k in (100, 200))
    rounding = 200 * PADDED * np.finfo(float).eps * np.linalg.norm(hidden, axis=(1, 2))
    stalled = (end >= np.minimum(0.99, predicted**50) * middle - 4 * rounding) | (predicted >= 1 - 1e-6)
    slow = predicted**100 > 0.8
    assert not np.any(found.limit_held & periodic & ~found.arrived)
    assert np.all(found.limit_held | periodic | (slow & stalled))
    assert np.any(periodic)
    for k in np.flatnonzero(found.arrived):
        real = mask[k]
        power = np.linalg.matrix_power(attn[k][real][:, real], 200) @ hidden[k][real]
        np.testing.assert_allclose(found.observed_limit[k][real], power, atol=1e-11)
        apart = np.linalg.norm(power - found.predicted_limit[k][real])
        start = np.linalg.norm(hidden[k][real] - found.predicted_limit[k][real])
        assert apart <= 1e-3 * start + 1e-12
    # |lambda_2| is the rate in the end, for generic H, wherever powers of k have died out.
    simple = np.asarray(found.predicted_rate) < 0.9
    assert np.mean(np.asarray(found.rate_held)[simple]) > 0.9


@pytest.mark.parametrize(
    "seeds", [pytest.param([4], id="few"), pytest.param(range(100, 458), id="many", marks=pytest.mark.long)]
)
def test_every_prediction_of_converge_on_every_family(seeds):
    for seed in seeds:
        check_converge(seed)


def closes(attn: np.ndarray) -> bool:
    """Whether 1 is the only eigenvalue of modulus 1."""
    values = np.linalg.eigvals(attn)
    return bool(np.all(np.abs(values - 1)[np.abs(values) > 1 - 1e-9] < 1e-6))


@pytest.mark.parametrize(("width", "promised", "steps"), [(2, 10, 157), (4, 10, 58), (8, 10, 30)])
def test_a_window_takes_far_longer_than_its_eigenvalue_says(width, promised, steps):
    """P10: |lambda_2| = 1/2 promises 10 steps to 1e-3 under every window. The powers say otherwise."""
    attn, hidden, mask = window(width, WIDE), np.eye(WIDE), np.ones(WIDE, bool)
    power, needed = hidden, 0
    limit = np.tile(np.eye(WIDE)[0], (WIDE, 1))
    while np.linalg.norm(power - limit) > 1e-3 * np.linalg.norm(hidden - limit):
        power, needed = attn @ power, needed + 1
    found = jax.tree.map(lambda leaf: leaf[0], converge_all(attn[None], hidden[None], mask[None], 256))
    assert int(found.observed_steps) == needed
    assert abs(needed - steps) <= 2
    assert float(found.predicted_steps) == promised
    assert float(found.transient) == needed - promised
    assert not found.steps_held
    assert found.limit_held
    assert found.ergodicity_held
    assert float(found.predicted_rate) == 0.5
    # For window 2 the eigenvalue is not the rate even after 128 steps.
    assert bool(found.rate_held) == (width > 2)


def test_converge_in_single_precision_and_under_periodicity():
    swap = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.75, 0.25], [0.25, 0.75]]], np.float32)
    hidden = np.array([[[1.0], [3.0]]] * 2, np.float32)
    found = converge_all(swap, hidden, np.ones((2, 2), bool), 64)
    assert found.observed_rate.dtype == np.float32
    assert found.limit_held.tolist() == [False, True]
    assert found.rate_held.tolist() == [True, True]
    assert np.isinf(found.predicted_steps[0])
    np.testing.assert_allclose(found.predicted_limit, 2, rtol=1e-6)


def test_converge_to_the_projection_on_several_closed_classes():
    attn = closed_classes(np.random.default_rng(5), TOKENS)
    wide, mask = padded_on_both_sides(np.tile(attn, (280, 1, 1)))
    hidden = np.random.default_rng(6).standard_normal((280, PADDED, 3))
    found = jax.tree.map(lambda leaf: leaf[0], converge_all(wide, hidden, mask, 200))
    values = np.sort(np.abs(np.linalg.eigvals(attn)))
    assert (int(found.classes), float(found.slem)) == (2, 1)
    assert float(found.predicted_rate) == pytest.approx(values[-3], rel=1e-7)
    assert found.limit_held
    assert found.rate_held
    # Not one row: the limit differs between the classes.
    assert np.ptp(np.asarray(found.observed_limit)[1 : TOKENS + 1], axis=0).min() > 1e-3


def test_padding_changes_no_convergence():
    rng = np.random.default_rng(7)
    attn, mask = (np.concatenate(parts) for parts in zip(*(attention_batch(rng) for _ in range(20)), strict=True))
    hidden = rng.standard_normal((len(attn), PADDED, 3))
    clean = converge_all(attn, hidden, mask, 200)
    dirty = converge_all(np.where(mask[..., None], attn, np.nan), np.where(mask[..., None], hidden, np.nan), mask, 200)
    for name in ("predicted_rate", "observed_rate", "ergodicity", "mixing_rate", "observed_limit"):
        np.testing.assert_allclose(getattr(dirty, name), getattr(clean, name), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(dirty.observed_steps, clean.observed_steps)


PROGRAMS = {
    "iterate": lambda a, x, m: iterate(Dense(a, m), x, 4)[0],
    "iterate_until": lambda a, x, m: iterate_until(Dense(a, m), x, tolerance=1e-3),
    "blocked": lambda a, x, m: blocked_attention(x, x, m, ahead=0, block=4).transpose_apply(x),
    "operator_norm": lambda a, x, m: operator_norm(Centred(Dense(a, m))),
    "slem": lambda a, x, m: slem(a, m),
    "arnoldi": lambda a, x, m: arnoldi(Dense(a, m), 4),
    "converge": lambda a, x, m: converge(a, x, m, logits=a, steps=8),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_lower_for_every_platform(name):
    """No call into a CPU library is left in what a GPU or a TPU is given."""
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((16, 16), "float32"), ((16, 4), "float32"), ((16,), bool))
    ]
    program = PROGRAMS[name]
    exported = export.export(jax.jit(program), platforms=["cpu", "cuda", "tpu"])(*shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert "lapack" not in exported.mlir_module()


def test_eigvals_would_not_lower():
    """The negative control: what the routines above do without."""
    with pytest.raises(NotImplementedError):
        export.export(jax.jit(jnp.linalg.eigvals), platforms=["tpu"])(jax.ShapeDtypeStruct((4, 4), "float32"))


def random_attention(rng, count: int, size: int = 12) -> np.ndarray:
    weight = np.exp(rng.standard_normal((count, size, size)))
    return weight / weight.sum(axis=-1, keepdims=True)


def names(verdicts) -> list[str]:
    return [Held(int(verdict)).name for verdict in np.ravel(verdicts)]


def unsuitable(rng) -> list[np.ndarray]:
    """Centred attention; the symmetric normalisation; rows of .9; a negative entry; a NaN."""
    one = random_attention(rng, 1)[0]
    scores = rng.standard_normal((12, 12))
    graph = np.exp(scores + scores.T)
    root = np.sqrt(graph.sum(axis=1))
    negative = one.copy()
    negative[0, :2] += [-0.5, 0.5]
    return [one - 1 / 12, graph / root[:, None] / root[None], 0.9 * one, negative, np.where(np.eye(12), np.nan, one)]


def with_eigenvalues(*values: float) -> np.ndarray:
    """Symmetric and stochastic, of n = 4, with the eigenvalues 1 and those given, by Hadamard's vectors."""
    vectors = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    return vectors.T @ np.diag([1.0, *values]) @ vectors


SECOND, THIRD = np.array([[1.0], [-1], [1], [-1]]), np.array([[1.0], [1], [-1], [-1]])
LEAK = 1e-7
LEAKY = (1 - LEAK) * np.kron(np.eye(2), np.full((2, 2), 0.5)) + LEAK / 4
SMALL = {
    "slow": (with_eigenvalues(0.999, 0.3, 0.3), SECOND + THIRD),
    "fast": (with_eigenvalues(0.99, 0.3, 0.3), SECOND + THIRD),
    "nothing of the second": (with_eigenvalues(0.999, 0.99, 0.9895), THIRD),
    "little of the second": (with_eigenvalues(0.9, 0.5, 0.5), THIRD + 1e-12 * SECOND),
    "leak": (LEAKY, np.array([[1.0], [2], [5], [7]])),
    "one token": (np.ones((1, 1)), np.ones((1, 1))),
    "no token": (np.ones((0, 0)), np.ones((0, 1))),
    "zero": (with_eigenvalues(0.9, 0.5, 0.5), np.zeros((4, 1))),
}


@pytest.fixture(scope="module")
def judged():
    """Everything below in one program: 200 starts in consensus, unsuitable matrices and a suitable one, `SMALL`."""
    rng = np.random.default_rng(11)
    attn = np.concatenate([random_attention(rng, 200), unsuitable(rng), random_attention(rng, 1)])
    hidden = np.broadcast_to(rng.standard_normal((206, 1, 3)), (206, 12, 3)).copy()
    hidden[200:] = rng.standard_normal((6, 12, 3))
    mask = np.ones((206, 12), bool)
    small = np.full((len(SMALL), 12, 12), 7.0), np.full((len(SMALL), 12, 3), np.nan), np.zeros((len(SMALL), 12), bool)
    for k, (matrix, tokens) in enumerate(SMALL.values()):
        n = len(matrix)
        small[0][k, :n, :n], small[1][k, :n], small[2][k, :n] = matrix, tokens, True
    stacked = (np.concatenate(parts) for parts in zip((attn, hidden, mask), small, strict=True))
    found = converge_all(*stacked, 64)
    rows = {"consensus": slice(0, 200), "other": slice(200, 206)}
    rows |= {name: slice(206 + k, 207 + k) for k, name in enumerate(SMALL)}
    return {name: jax.tree.map(lambda leaf, at=at: np.asarray(leaf)[at], found) for name, at in rows.items()}


def test_a_start_in_consensus_has_arrived(judged):
    """What is left of H - limit there is rounding, which must not be judged."""
    found = judged["consensus"]
    assert np.all(found.applicable)
    assert np.all(found.limit_held)
    assert np.all(found.arrived)
    np.testing.assert_array_equal(found.limit_error, 0)
    np.testing.assert_array_equal(found.observed_steps, 1)
    assert set(names(found.rate)) == {"UNDECIDED"}


@pytest.mark.parametrize("name", ["one token", "no token", "zero"])
def test_the_smallest_sizes_are_in_consensus(judged, name):
    assert names(judged[name].limit) == ["HELD"]
    assert judged[name].limit_error == 0


def test_a_matrix_that_is_not_stochastic_is_not_judged(judged):
    found = judged["other"]
    assert found.applicable.tolist() == [False] * 5 + [True]
    for verdicts in (found.limit, found.rate, found.steps):
        assert names(verdicts) == ["NOT_APPLICABLE"] * 5 + ["HELD"]


def test_rates_are_compared_by_their_time_scales(judged):
    """A rate of .999 is ten times as slow as .99, however near it looks; one that still changes is not decided."""
    expected = {
        "slow": (0.999, "HELD"),
        "fast": (0.99, "HELD"),
        "nothing of the second": (0.999, "FAILED"),
        "little of the second": (0.9, "UNDECIDED"),
    }
    for name, (rate, verdict) in expected.items():
        np.testing.assert_allclose(judged[name].predicted_rate, rate, rtol=1e-6)
        assert names(judged[name].rate) == [verdict], name
    assert abs(judged["nothing of the second"].observed_rate[0] - 0.99) < 1e-3


def test_not_yet_is_not_not(judged):
    """A leak of 1e-7 between two halves: nothing of the predicted limit is seen in 64 steps, and nothing against it."""
    found = judged["leak"]
    assert not found.arrived[0]
    assert names([found.limit, found.steps]) == ["UNDECIDED"] * 2


def test_the_symmetric_normalisation_has_a_subspace_and_a_rate_of_its_own():
    rng = np.random.default_rng(13)
    scores = rng.standard_normal((12, 12))
    graph = np.exp(scores + scores.T)
    degrees = graph.sum(axis=1)
    matrix = graph / np.sqrt(np.outer(degrees, degrees))
    hidden, values = rng.standard_normal((12, 3)), np.linalg.eigvalsh(matrix)
    basis = np.sqrt(degrees / degrees.sum())
    padded = np.full((15, 15), 7.0)
    padded[1:13, 1:13] = graph
    mask = np.zeros(15, bool)
    mask[1:13] = True
    tokens = np.full((15, 3), np.nan)
    tokens[1:13] = hidden
    found = jax.jit(converge_symmetric)(padded, tokens, mask)
    np.testing.assert_allclose(found.predicted_limit[mask], np.outer(basis, basis @ hidden), rtol=1e-10)
    power = np.linalg.matrix_power(matrix, 256) @ hidden
    np.testing.assert_allclose(found.observed_limit[mask], power, atol=1e-12)
    np.testing.assert_allclose(found.predicted_rate, np.sort(np.abs(values))[-2], rtol=1e-6)
    assert bool(found.applicable)
    assert names([found.limit, found.rate, found.steps]) == ["HELD"] * 3
    assert bool(found.ergodicity_held)
    # Tokens do not become equal: the limit is not in M. The transpose of a graph that is not symmetric is another one.
    assert np.ptp(found.predicted_limit[mask], axis=0).min() > 1e-3
    padded[1, 2] *= 2
    assert names(jax.jit(converge_symmetric)(padded, tokens, mask).limit) == ["NOT_APPLICABLE"]


def test_a_wrong_limit_is_refuted():
    """The verdict's own test: the limit of another matrix, from which the iterates stay away."""
    attn, wrong = jnp.asarray(random_attention(np.random.default_rng(14), 2))
    hidden, ones = jnp.asarray(np.random.default_rng(16).standard_normal((12, 3))), jnp.ones(12, bool)

    @jax.jit
    def judge(limit: jax.Array) -> jax.Array:
        chain = Chain(attn, limit, ones, jnp.ones(12), jnp.int32(1), jnp.bool_(True))
        _, ratios, _ = observe(chain, hidden, limit @ hidden, 64)
        return limit_verdict(chain, ratios, jnp.asarray(0.5), ratios[-1] <= 1e-3, 64)

    limits = [np.linalg.matrix_power(matrix, 200) for matrix in (wrong, attn)]
    assert names([judge(limit) for limit in limits]) == ["FAILED", "HELD"]


def corners(rng) -> tuple[np.ndarray, np.ndarray]:
    """Slow attention at consensus; all queries alike; next to the identity; a mean of 10^4 deviations."""
    attn, hidden = random_attention(rng, 4), rng.standard_normal((4, 12, 3))
    attn[0] = 0.9998 * np.eye(12) + 2e-4 * attn[0]
    hidden[0] = hidden[0, :1]
    attn[1] = attn[1, :1]
    attn[2] = 0.999 * np.eye(12) + 1e-3 * attn[2] ** 3 / np.sum(attn[2] ** 3, axis=-1, keepdims=True)
    hidden[3] += 1e4
    return attn, hidden


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_and_too_few_steps_refute_nothing(dtype):
    """All of it is true of attention, so that no verdict may be FAILED and no bound broken."""
    attn, hidden = corners(np.random.default_rng(21))
    found = converge_all(attn.astype(dtype), hidden.astype(dtype), np.ones((4, 12), bool), 256)
    assert np.all(found.applicable)
    for verdicts in (found.limit, found.rate, found.steps):
        assert "FAILED" not in names(verdicts), names(verdicts)
    assert np.all(found.ergodicity_held)
