"""Every public function of reals has a derivative in reverse, or says by name that it has none. Traced, not run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import public

from jaxsmooth import theory
from jaxsmooth.errors import DerivativeError
from jaxsmooth.linalg.eigh import batched_eigvalsh

FUNCTIONS = {
    name: function
    for name, function in public.functions().items()
    if function.__module__.startswith(("jaxsmooth.metrics", "jaxsmooth.theory", "jaxsmooth.linalg"))
}
FORWARD_ONLY = {"slem", "subdominant", "iterate_until", "converge", "converge_symmetric", "follow", "blocked_attention"}
SEARCHES = {"largest_eigenvalue", "operator_norm", "spectral_norm", "pair_weight", "castin2024_local_lipschitz"}
QUICK = {*FORWARD_ONLY, *SEARCHES, "chain_limit", "stationary_law", "consensus_basin"} - {
    "converge",
    "converge_symmetric",
    "slem",
}
"""Of the others `test_measures.py` differentiates the measures every time; tracing all of them takes a minute."""


def total_of(name: str):
    """The sum of all that is real of a function, of its real arrays; and those."""
    function = FUNCTIONS[name]
    given = public.arguments(name, function)
    leaves, shape = jax.tree.flatten({key: value for key, value in given.items() if public.is_traced(key, value)})
    real = [k for k, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    static = {key: value for key, value in given.items() if not public.is_traced(key, value)}

    def total(varied: list) -> jax.Array:
        filled = list(leaves)
        for k, leaf in zip(real, varied, strict=True):
            filled[k] = leaf
        found = jax.tree.leaves(function(**jax.tree.unflatten(shape, filled), **static))
        found = [leaf for leaf in found if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
        return sum((jnp.sum(leaf).astype(jnp.float32) for leaf in found), jnp.zeros((), jnp.float32))

    return total, [leaves[k] for k in real]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in FUNCTIONS]
)
def test_a_derivative_in_reverse_or_an_error_that_names_the_function(name):
    total, varied = total_of(name)
    if name in FORWARD_ONLY:
        with pytest.raises(DerivativeError, match=f"`{name}` has no derivative in reverse"):
            jax.eval_shape(jax.grad(total), varied)
        jax.eval_shape(lambda x: jax.jvp(total, (x,), (x,))[1], varied)
        assert "derivative in reverse" in FUNCTIONS[name].__doc__
    else:
        jax.eval_shape(jax.grad(total), varied)


def symmetric(size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, size, size))
    return one @ one.T, other + other.T


def test_the_largest_eigenvalue_has_the_derivative_of_its_form():
    """Of what the operator is made of, closed over and mapped: x^T dA x, against finite differences."""
    matrix, change = symmetric()
    start = jnp.ones(len(matrix))

    def value(matrix):
        return theory.largest_eigenvalue(lambda v: matrix @ v, start, tolerance=1e-12).value

    expected = (np.linalg.eigvalsh(matrix + 1e-6 * change)[-1] - np.linalg.eigvalsh(matrix - 1e-6 * change)[-1]) / 2e-6
    slope = jax.jit(jax.vmap(jax.grad(value)))(jnp.asarray(matrix)[None])[0]
    assert float(jnp.sum(slope * change)) == pytest.approx(expected, rel=1e-7)
    forward = jax.jit(lambda: jax.jvp(value, (jnp.asarray(matrix),), (jnp.asarray(change),))[1])()
    assert float(forward) == pytest.approx(expected, rel=1e-7)


def test_of_repeated_eigenvalues_the_derivative_is_finite():
    """There is none; that of the vectors found is given, whose sum is the trace's."""
    slope = jax.grad(lambda a: jnp.sum(batched_eigvalsh(a)))(jnp.eye(3)[None])
    np.testing.assert_allclose(slope[0], np.eye(3), atol=1e-12)
    norm = jax.grad(lambda a: theory.largest_eigenvalue(lambda v: a @ v, jnp.ones(3), tolerance=1e-9).value)(jnp.eye(3))
    assert np.linalg.norm(norm) == pytest.approx(1)


def test_an_operator_s_norm_has_the_derivative_of_its_singular_vectors():
    rng = np.random.default_rng(1)
    matrix, change = rng.standard_normal((2, 5, 5))
    mask = jnp.array([True] * 4 + [False])

    def value(matrix):
        return theory.operator_norm(theory.Dense(matrix, mask), tolerance=1e-12).value

    def exact(matrix):
        return np.linalg.svd(matrix[:4, :4], compute_uv=False)[0]

    expected = (exact(matrix + 1e-6 * change) - exact(matrix - 1e-6 * change)) / 2e-6
    slope = jax.jit(jax.grad(value))(jnp.asarray(matrix))
    assert float(jnp.sum(slope * change)) == pytest.approx(expected, rel=1e-7)
    assert np.all(slope[4] == 0)
