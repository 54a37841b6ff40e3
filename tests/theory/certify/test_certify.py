"""The certifier's enclosures against Arb: none misses the exact value, and none is vacuous."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.certify import REAL, TOKENS, WIDTH, arb_ends, attention, matrix, on_device, on_host, tokens
from support.statements import few_or_many, record

from jaxsmooth import activations
from jaxsmooth.linalg import enclosed_norms, intervals
from jaxsmooth.linalg.intervals import Ball, Interval
from jaxsmooth.theory.certify import matrix_calculus
from jaxsmooth.theory.certify.arb_calculus import ArbCalculus
from jaxsmooth.theory.certify.float_calculus import FloatCalculus, HostCalculus

# Relative widths that a benign case must not exceed: the enclosures are to be used, not only to be true.
WIDTHS = {"float32": 2e-3, "float64": 1e-12}


def distance(c, h):
    return c.distance(c.matrix(h))


def product(c, h, w):
    return c.frobenius(c.matmul(c.matrix(h), c.matrix(w)))


def norm(c, w):
    return c.norm(c.matrix(w))


def least_std(c, h):
    return c.least(c.stds(c.matrix(h), 1e-12))


def pairs(c, h):
    m = c.matrix(h)
    return c.pair_distance(c.centre_features(m), c.number(1.0) / c.stds(m, 1e-3))


def weight(c, h):
    return c.norm(c.laplacian(c.number(1.0) / c.stds(c.matrix(h), 1e-3)))


def diameter(c, h):
    return c.diameter(c.matrix(h))


def normed(c, h):
    m = c.matrix(h)
    ones = c.matrix(np.ones((1, WIDTH), np.float32))
    return c.distance(c.layer_norm(m, ones, ones, c.stds(m, 1e-3)))


def ergodicity(c, a):
    return c.ergodicity(c.matrix(a))


def cross_ratio(c, a):
    return c.cross_ratio(c.matrix(a))


def entry_ratio(c, a):
    return c.entry_ratio(c.matrix(a))


def received(c, a):
    return c.largest(c.received(c.matrix(a)))


def defect(c, a):
    return c.defect(c.matrix(a))


def mixing(c, a):
    return c.norm(c.centre_tokens(c.matrix(a)))


def softmax(c, h):
    m = c.matrix(h)
    return c.distance(c.softmax(c.matmul(m, c.transpose(m))))


def gelu(c, h):
    return c.distance(c.activation(c.matrix(h), "gelu"))


def spread(c, h):
    m = c.matrix(h)
    return c.logit_spread(c.matmul(m, c.transpose(m)))


QUANTITIES = {
    "distance": (distance, (tokens,)),
    "product": (product, (tokens, matrix)),
    "norm": (norm, (matrix,)),
    "least_std": (least_std, (tokens,)),
    "pairs": (pairs, (tokens,)),
    "weight": (weight, (tokens,)),
    "diameter": (diameter, (tokens,)),
    "normed": (normed, (tokens,)),
    "ergodicity": (ergodicity, (attention,)),
    "cross_ratio": (cross_ratio, (attention,)),
    "entry_ratio": (entry_ratio, (attention,)),
    "received": (received, (attention,)),
    "defect": (defect, (attention,)),
    "mixing": (mixing, (attention,)),
    "softmax": (softmax, (tokens,)),
    "gelu": (gelu, (tokens,)),
    "spread": (spread, (tokens,)),
}


def draw(makers, cases: int, dtype: str, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.stack(column) for column in zip(*([m(rng, dtype) for m in makers] for _ in range(cases)), strict=True)]


def contains(found: Interval, exact: Interval) -> np.ndarray:
    """Whether an enclosure, NaN ends standing for infinite ones, meets all that Arb allows."""
    below = np.isnan(found.lower) | (found.lower <= exact.upper)
    return below & (np.isnan(found.upper) | (found.upper >= exact.lower))


@few_or_many(40, 3125)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", QUANTITIES)
def test_no_enclosure_misses_the_exact_value(name, dtype, seed, cases):
    """17 quantities x 2 precisions x 40 or 3125 cases, each on the device, on the host, and with the SVD."""
    formula, makers = QUANTITIES[name]
    columns = draw(makers, cases, dtype, seed)
    found = on_device(formula, dtype)(*(jnp.asarray(c) for c in columns))
    down, up = np.asarray(found.lower, np.float64), np.asarray(found.upper, np.float64)
    missed = []
    for case, arrays in enumerate(zip(*columns, strict=True)):
        exact = arb_ends(formula, *arrays)
        hosts = [on_host(formula, calculus, dtype, *arrays) for calculus in (FloatCalculus, HostCalculus)]
        every = [Interval(down[case], up[case]), *hosts]
        missed += [
            (case, place, enclosed, exact) for place, enclosed in enumerate(every) if not contains(enclosed, exact)
        ]
    record(np.zeros(cases), np.ones(cases), len(missed))
    assert not missed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["distance", "product", "norm", "least_std", "diameter", "normed", "mixing"])
def test_enclosures_are_narrow(name, dtype):
    formula, _ = QUANTITIES[name]
    rng = np.random.default_rng(0)
    makers = {"norm": (WIDTH, WIDTH), "mixing": (TOKENS, TOKENS)}
    shapes = [makers.get(name, (TOKENS, WIDTH)), (WIDTH, WIDTH)][: 2 if name == "product" else 1]
    columns = [rng.standard_normal((40, *shape)).astype(dtype) for shape in shapes]
    found = on_device(formula, dtype)(*map(jnp.asarray, columns))
    assert np.all((found.upper - found.lower) <= WIDTHS[dtype] * found.upper)


@pytest.mark.parametrize(("dtype", "ratio"), [("float32", 1e4), ("float64", 1e8)])
def test_a_mean_far_larger_than_the_deviations_costs_no_digits(dtype, ratio):
    rng = np.random.default_rng(0)
    h = (rng.standard_normal((40, TOKENS, WIDTH)) + ratio * rng.standard_normal((40, 1, WIDTH))).astype(dtype)
    found = on_device(distance, dtype)(jnp.asarray(h))
    assert np.all((found.upper - found.lower) <= WIDTHS[dtype] * found.upper)


def test_squarings_and_decomposition_agree_on_large_matrices():
    rng = np.random.default_rng(0)
    b = rng.standard_normal((96, 160))
    exact = np.linalg.norm(b, 2)
    for found in (
        jax.jit(enclosed_norms.squared_norm)(jnp.asarray(b)),
        enclosed_norms.decomposed_norm(b),
        enclosed_norms.squared_norm(b),
    ):
        assert exact * (1 - 1e-11) <= found.lower <= exact <= found.upper <= exact * (1 + 1e-10)
    factors = rng.standard_normal((2, 160, 8))
    whole = enclosed_norms.product_norm(factors[0], factors[1].T)
    exact = np.linalg.norm(factors[0] @ factors[1].T, 2)
    assert exact * (1 - 1e-11) <= whole.lower <= exact <= whole.upper <= exact * (1 + 1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interval_arithmetic_contains_arbs(dtype):
    """Sums, differences, products, quotients and roots of numbers of every size, on device and host."""
    from flint import arb

    rng = np.random.default_rng(0)
    limit = {"float32": 45, "float64": 320}[dtype]
    largest = {"float32": 38, "float64": 308}[dtype]
    numbers = (10.0 ** rng.uniform(-limit, largest, (2, 500)) * rng.choice([-1, 1], (2, 500))).astype(dtype)

    def all_of(x, y):
        a, b = Interval.exact(x), Interval.exact(y)
        size = Interval.exact(abs(y))
        return a + b, a - b, a * b, a / size, size.sqrt()

    with np.errstate(all="ignore"):
        for found in (jax.jit(all_of)(*map(jnp.asarray, numbers)), all_of(*numbers)):
            for case, (x, y) in enumerate(numbers.T.astype(np.float64).tolist()):
                a, b, size = arb(x), arb(y), arb(abs(y))
                quotient = a / size if y else None
                for enclosed, exact in zip(found, (a + b, a - b, a * b, quotient, size.sqrt()), strict=True):
                    down, up = float(enclosed.lower[case]), float(enclosed.upper[case])
                    if exact is not None:
                        assert not arb(down) > exact if np.isfinite(down) else True
                        assert not arb(up) < exact if np.isfinite(up) else True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_are_as_accurate_as_assumed(dtype):
    """exp, tanh and the activations on a grid, against Arb: at most half of what the enclosures allow for."""
    from jaxsmooth.theory.certify.arb_matrices import FUNCTIONS, arb

    ArbCalculus(1)
    x = np.concatenate([np.linspace(-30, 30, 1201), np.logspace(-12, -1, 100)]).astype(dtype)
    allowed = matrix_calculus.FUNCTION_ULPS * np.finfo(dtype).eps
    assert set(FUNCTIONS) == set(activations.ACTIVATIONS)
    for name, activation in activations.ACTIVATIONS.items():
        found = np.asarray(jax.jit(activation.function)(jnp.asarray(x)), np.float64).tolist()
        for value, argument in zip(found, x.tolist(), strict=True):
            assert float(abs(arb(value) - FUNCTIONS[name](arb(argument)))) <= allowed * abs(argument), (name, argument)
    for name, function in (("exp", jnp.exp), ("tanh", jnp.tanh)):
        found = np.asarray(jax.jit(function)(jnp.asarray(x)), np.float64).tolist()
        for value, argument in zip(found, x.tolist(), strict=True):
            exact = getattr(arb(argument), name)()
            assert float(abs(arb(value) - exact)) <= allowed * float(abs(exact)) + np.finfo(dtype).tiny, (
                name,
                argument,
            )


def test_powers_of_two_are_exact():
    for dtype in (np.float32, np.float64):
        x = (10.0 ** np.linspace(-30, 30, 200)).astype(dtype)
        for found in (
            jax.vmap(intervals.power_of_two)(jnp.asarray(x)),
            np.array([intervals.power_of_two(y) for y in x]),
        ):
            mantissa, _ = np.frexp(np.asarray(found))
            assert np.all(mantissa == 0.5)
            assert np.all((found <= x) & (x < 2 * found))


def test_a_product_of_too_many_terms_is_refused():
    with pytest.raises(ValueError, match="no digit to rely on"):
        intervals.gamma(10**7, np.zeros(1, np.float32))


def test_faithful_products_sees_a_coarse_product(monkeypatch):
    assert intervals.faithful_products("float32")
    assert intervals.faithful_products("float64")

    def coarse(x, y):
        return (x.astype(jnp.bfloat16) @ y.astype(jnp.bfloat16)).astype(x.dtype)

    monkeypatch.setattr(intervals, "dot", coarse)
    assert not intervals.faithful_products("float32")


def test_padding_changes_no_enclosure():
    """Padded rows are left out whatever stands there, up to the rounding of longer sums."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((TOKENS, WIDTH))
    longer = np.concatenate([h, 1e6 * rng.standard_normal((2, WIDTH))])
    mask = np.arange(TOKENS + 2) < TOKENS
    for formula in (distance, least_std, pairs, weight, diameter):
        short, padded = formula(FloatCalculus(REAL, h.dtype), h), formula(FloatCalculus(mask, h.dtype), longer)
        np.testing.assert_allclose([padded.lower, padded.upper], [short.lower, short.upper], rtol=1e-12)


def test_balls_of_intervals_lose_nothing():
    known = Interval(np.array([1.0, -2.0]), np.array([1.5, 3.0]))
    again = Ball.of(known).interval()
    assert np.all((again.lower <= known.lower) & (again.upper >= known.upper))
    assert np.all(again.upper - again.lower <= (known.upper - known.lower) * (1 + 1e-14))
