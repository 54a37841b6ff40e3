"""What all measures have in common: scale, range, bfloat16, NaN, and derivatives where there is hardly a value."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import public

from jaxsmooth import metrics, theory
from jaxsmooth.errors import ShapeError
from jaxsmooth.theory import consensus

T, D = 4, 3
# By how much a measure grows with its argument.
DEGREE = {
    **dict.fromkeys(("token_cosine_similarity", "cosine_matrix", "mean_average_distance", "singular_value_profile"), 0),
    **dict.fromkeys(("effective_rank", "stable_rank", "frequency_ratio", "dong_residual", "relative_distance"), 0),
    **dict.fromkeys(("cosine_distance", "cosine_distance_bound", "scholkemper2024_batch_norm"), 0),
    **dict.fromkeys(("zhang2025_numerical_rank", "zhang2025_effective_rank", "zhang2025_rank_order"), 0),
    **dict.fromkeys(
        ("singular_values", "token_norm", "subspace_distance", "diameter", "token_spread", "token_mean"), 1
    ),
    **dict.fromkeys(("centre_tokens", "dong2021_composite_norm"), 1),
    **dict.fromkeys(("mixing_rate", "ergodicity_coefficient", "mixing_rate_by_entries"), 1),
    **dict.fromkeys(("mixing_rate_by_ergodicity", "sink_strength", "first_token_attention"), 1),
}
HIDDEN = ("hidden", "matrix")
OTHERS = {
    # What no factor makes sense for: entropies, laws and eigenvalues of stochastic matrices; what would overflow.
    *("dirichlet_energy", "attention_entropy", "stationary_law", "chain_limit", "detailed_balance_defect", "slem"),
    *("causal_second_eigenvalue", "ali2023_centred_attention", "guo2023_smallest_eigenvalue"),
    *("mixing_rate_by_columns", "sink_ergodicity"),
}
RANGE = {
    "token_cosine_similarity": (-1, 1),
    "cosine_matrix": (-1, 1),
    "mean_average_distance": (0, 2),
    "cosine_distance": (0, 2),
    "singular_value_profile": (0, 1),
    "effective_rank": (1, D),
    "stable_rank": (1, D),
    "relative_distance": (0, 1),
    **dict.fromkeys(("ergodicity_coefficient", "sink_strength", "first_token_attention"), (0, 1)),
    "attention_entropy": (0, np.log(np.float32(T))),
}


def measures() -> dict:
    """Of a state or of attention, and a mask."""
    found = {}
    for name, function in public.functions().items():
        parameters = inspect.signature(function).parameters
        required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
        room = function.__module__.startswith(("jaxsmooth.metrics", "jaxsmooth.theory"))
        if not room or len(required) != 2 or required[0] not in (*HIDDEN, "attn") or required[1] != "mask":
            continue
        if parameters[required[0]].annotation.dim_str.startswith("*B"):
            found[name] = function
    return found


MEASURES = measures()


OWN_LEAD = {"guo2023_smallest_eigenvalue", "ali2023_centred_attention"}
"""Of one matrix a sentence: a mask of as many axes as the matrices have."""


def is_of_attention(name: str) -> bool:
    return next(iter(inspect.signature(MEASURES[name]).parameters)) == "attn"


@functools.cache
def compiled(name: str):
    """The measure of a batch, and the derivative of the sum of what is finite."""

    def total(array, mask):
        found = jax.tree.leaves(MEASURES[name](array, mask))
        found = [leaf for leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)]
        kept = [jnp.sum(jnp.where(jnp.isfinite(leaf), leaf, 0)) for leaf in found]
        return sum(kept, jnp.zeros((), jnp.float32)), found

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def measured(name: str, array, mask=None):
    mask = np.ones(np.shape(array)[:-1], bool) if mask is None else mask
    (_, found), slope = compiled(name)(jnp.asarray(array, jnp.float32), jnp.asarray(mask))
    return [np.asarray(leaf) for leaf in found], np.asarray(slope)


def generic(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if is_of_attention(name):
        raw = np.exp(rng.standard_normal((8, T, T)))
        return (raw / raw.sum(-1, keepdims=True)).astype(np.float32)
    return rng.standard_normal((8, T, D)).astype(np.float32)


def edges(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Generic; all tokens equal; zero; one zero token; two equal tokens; one real token; none; equal values."""
    array, mask = generic(name), np.ones((8, T), bool)
    if is_of_attention(name):
        array[1], array[2], array[3] = 1 / T, np.eye(T), np.eye(T)[0]
        array[4] = np.eye(T)[::-1]
        array[5], array[6] = np.eye(T), 1 / T
    else:
        array[1], array[2], array[3, 1], array[4, 1] = array[1, 0] * 1.1, 0, 0, array[4, 0]
        array[7] = np.eye(T, D)
    mask[5, 1:], mask[6] = False, False
    return array, mask


def test_every_measure_is_sorted():
    assert set(DEGREE) | OTHERS == set(MEASURES)
    assert set(RANGE) <= set(MEASURES)


@pytest.mark.compatibility(
    "measure", "one collapsed, one-token or empty sentence in a batch", "finite gradients", was=2
)
@pytest.mark.compatibility("measure", "identical tokens", "cosine 1, MAD 0: in the documented range", was=1)
@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"slem", "chain_limit", "stationary_law"}))
def test_at_the_edges(name):
    """Derivatives are finite whatever the value, and values are in their range to the last digit."""
    array, mask = edges(name)
    found, slope = measured(name, array, mask)
    assert np.all(np.isfinite(slope))
    if name != "causal_second_eigenvalue":  # of attention that is causal
        assert all(np.all(np.isfinite(leaf[0])) for leaf in found)
    if name in RANGE:
        low, high = RANGE[name]
        known = found[0][~np.isnan(found[0])]
        real = known[known != 0] if name in ("singular_value_profile", "cosine_matrix") else known
        assert np.all((real >= low) & (real <= high))


@pytest.mark.compatibility("measure", "hidden states of size 1e-20 or 1e20", "as at size 1", was=1)
@pytest.mark.parametrize("name", sorted(DEGREE))
def test_the_scale_of_the_argument(name):
    array = generic(name)
    reference, slope = measured(name, array)
    for factor in (2.0**-66, 2.0**66):
        found, steeper = measured(name, array * np.float32(factor))
        for one, other in zip(found, reference, strict=True):
            if one.dtype == np.float32:
                np.testing.assert_allclose(one / factor ** DEGREE[name], other, rtol=2e-6, atol=1e-7)
        np.testing.assert_allclose(steeper * factor ** (1 - DEGREE[name]), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.compatibility(
    "measure", "NaN or infinity among the real tokens", "NaN, not a number that looks right", was=1
)
@pytest.mark.parametrize("name", sorted(set(DEGREE) | {"attention_entropy", "dirichlet_energy"}))
def test_what_is_not_finite_gives_nan(name):
    array = generic(name)
    array[1, 0, 0], array[2, 1, 1] = np.nan, np.inf
    found, _ = measured(name, array)
    plain, _ = measured(name, generic(name))
    for leaf, other in zip(found, plain, strict=True):
        assert not np.all(np.isfinite(leaf[1]))
        assert not np.all(np.isfinite(leaf[2]))
        np.testing.assert_array_equal(leaf[3:], other[3:])


@pytest.mark.compatibility("measure", "a bfloat16 trace", "the numbers of the same trace in float32", was=1)
@pytest.mark.parametrize("name", ["mean_average_distance", "mixing_rate"])
def test_bfloat16(name):
    rng = np.random.default_rng(2)
    array = rng.standard_normal((1, T, D)) * 0.01 + rng.standard_normal((1, 1, D))
    if name == "mixing_rate":
        array = generic(name)
    narrow = jnp.asarray(array, jnp.bfloat16)
    found = MEASURES[name](narrow, jnp.ones(narrow.shape[:-1], bool))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, measured(name, narrow)[0][0], rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["mixing_rate", "effective_rank", "token_cosine_similarity", "frequency_ratio", "dong_residual"]
)
def test_derivatives_are_those_of_finite_differences(name):
    array = jnp.asarray(generic(name)[:1], jnp.float64)
    mask = jnp.ones(array.shape[:-1], bool)
    way = jnp.asarray(np.random.default_rng(3).standard_normal(array.shape))
    options = {"tolerance": 1e-12} if name == "mixing_rate" else {}
    measure = jax.jit(lambda x: jnp.sum(MEASURES[name](x, mask, **options)))
    step = 1e-5
    slope = jnp.sum(jax.grad(measure)(array) * way)
    np.testing.assert_allclose(
        slope, (measure(array + step * way) - measure(array - step * way)) / (2 * step), rtol=1e-6
    )


@pytest.mark.compatibility(
    "measure", "a common feature of 1e4 beside a bulk of size 1", "small singular values kept", was=1
)
@pytest.mark.parametrize("kind", ["feature", "direction", "token"])
def test_small_singular_values_beside_a_large_one(kind):
    rng = np.random.default_rng(0)
    array = rng.standard_normal((24, 24))
    if kind == "feature":
        array[:, 3] += 1e4
    if kind == "direction":
        array += 1e4 * rng.standard_normal(24)
    if kind == "token":
        array[3] *= 1e4
    array = array.astype(np.float32)
    found = metrics.singular_values(jnp.asarray(array), jnp.ones(24, bool))
    np.testing.assert_allclose(found, np.linalg.svd(array.astype(np.float64), compute_uv=False), rtol=2e-5)


@pytest.mark.compatibility(
    "measure", "an operator of size 1e-20 or 1e20", "its largest eigenvalue, and an honest residual", was=1
)
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_eigenvalues_of_small_and_large_operators(size):
    values = np.linspace(1, 2, 20).astype(np.float32)
    spectrum = jnp.asarray(values * np.float32(size))
    found = theory.largest_eigenvalue(lambda v: v * spectrum, jnp.ones(20, jnp.float32), tolerance=1e-3)
    np.testing.assert_allclose(found.value / size, 2, rtol=1e-4)
    assert 0 <= found.residual <= 1e-3 * found.value
    dense = theory.Dense(jnp.diag(spectrum), jnp.ones(20, bool))
    norm = theory.operator_norm(dense, tolerance=1e-3)
    np.testing.assert_allclose(norm.value / size, 2, rtol=1e-4)
    assert norm.residual <= 1e-2 * norm.value
    np.testing.assert_allclose(theory.spectral_norm(jnp.diag(spectrum)) / size, 2, rtol=1e-4)


class Tensor:
    """As one of torch that needs a gradient: numpy may not read it."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.compatibility("measure", "lists in a measure", "as arrays", was=2)
@pytest.mark.compatibility("measure", "a tensor that numpy cannot read", "refused, saying how to hand it over", was=2)
def test_what_is_no_array_is_made_one_or_refused():
    array, mask = generic("token_norm")[:1], np.ones((1, T), bool)
    expected = metrics.token_norm(jnp.asarray(array), jnp.asarray(mask))
    np.testing.assert_allclose(metrics.token_norm(array.tolist(), mask.tolist()), expected, rtol=1e-6)
    for given, reason in ((Tensor(), "requires grad. Lists must be padded"), ([[1], [2, 3]], "inhomogeneous")):
        with pytest.raises(ShapeError, match=f"hidden must be an array of numbers.*{reason}"):
            metrics.token_norm(given, mask)
    with pytest.raises(ShapeError, match="hidden must be an array of numbers; got ndarray of complex"):
        metrics.token_norm(array.astype(complex), mask)


@pytest.mark.compatibility("measure", "a trace [L B T D] or [L B N T S], a mask [B T]", "of each sentence", was=1)
@pytest.mark.parametrize("name", [name for name in sorted(MEASURES) if name not in OWN_LEAD])
def test_the_mask_of_a_batch_is_that_of_every_layer(name):
    """As many layers as sentences, so that the one cannot be taken for the other; the sentences are of two lengths."""
    array, real = generic(name)[:4], np.ones((2, T), bool)
    real[0, -1] = False
    if is_of_attention(name):
        stacked = np.where(real[:, None, :], array.reshape(2, 2, T, T), 0)
        stacked = (stacked / stacked.sum(-1, keepdims=True))[:, :, None]
    else:
        stacked = array.reshape(2, 2, T, D)
    found, one = (MEASURES[name](jnp.asarray(x), jnp.asarray(real)) for x in (stacked, stacked[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), found, one)


@pytest.mark.compatibility("measure", "an additive mask of 0 and -1e9", "refused, saying what a mask is", was=1)
def test_a_mask_of_numbers_is_refused():
    """By the functions that every measure asks, without the annotations, which no user's program checks."""
    array, additive = jnp.ones((2, T, T)), jnp.zeros((2, T))
    for refused in (
        lambda: inspect.unwrap(consensus.per_row)(additive, array),
        lambda: inspect.unwrap(consensus.real_tokens)(array, additive),
        lambda: inspect.unwrap(consensus.real_tokens)(array, jnp.ones((2, 1), bool)),
    ):
        with pytest.raises(ShapeError, match="`attention_mask == 1`"):
            refused()


@pytest.mark.compatibility("measure", "an empty batch", "no numbers", was=0)
def test_an_empty_batch():
    found = metrics.singular_values(jnp.ones((0, T, D)), jnp.ones((0, T), bool))
    assert found.shape == (0, D)
    assert metrics.effective_rank(jnp.ones((0, T, D)), jnp.ones((0, T), bool)).shape == (0,)


@pytest.mark.compatibility("measure", "attention kept in bfloat16, whose rows miss 1", "in the documented range", was=1)
def test_rows_rounded_to_bfloat16_stay_in_range():
    apart = np.zeros((6, 6))
    apart[:3, :3] = apart[3:, 3:] = 1 / 3
    assert metrics.ergodicity_coefficient(jnp.asarray(apart, jnp.bfloat16), jnp.ones(6, bool)) == 1
    even = metrics.attention_entropy(jnp.full((3, 3), 1 / 3, jnp.bfloat16), jnp.ones(3, bool))
    assert even == jnp.log(jnp.float32(3))
