"""Derivative rules of our own: the plain rules' numbers in any order and direction, and less kept on the way back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import SMALL, make_trainer, small_batch, small_encoder, small_model

import jaxsmooth
from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.bert.matmul import split_matmul, token_matmul
from jaxsmooth.bert.norm import standardise
from jaxsmooth.linalg.rows import masked_softmax

EPS = 1e-3
ALLOWED = (jnp.arange(8) < 6)[None]
PLAIN_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": lambda x: 0.5 * x * (1 + jax.scipy.special.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + jnp.exp(-x)),
}


def plain_softmax(x):
    e = jnp.where(ALLOWED, jnp.exp(x), 0)
    return e / e.sum(-1, keepdims=True)


def plain_layer_norm(x):
    c = x - x.mean(-1, keepdims=True)
    std = jnp.sqrt((c**2).mean(-1, keepdims=True) + EPS)
    return jnp.concatenate([c / std, std], -1)


def plain_rms_norm(x):
    std = jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS)
    return jnp.concatenate([x / std, std], -1)


def joined(norm):
    return lambda x: jnp.concatenate(standardise(x, EPS, norm), -1)


def by_kernel(product):
    return lambda x: product(jnp.ones((1, 2, 8)) + x[None], jnp.sin(3 * x).T @ x)


PAIRS = {
    "softmax": (lambda x: masked_softmax(x, ALLOWED), plain_softmax),
    "layernorm": (joined("layernorm"), plain_layer_norm),
    "rmsnorm": (joined("rmsnorm"), plain_rms_norm),
    "none": (joined("none"), lambda x: jnp.concatenate([x, jnp.ones((2, 1))], -1)),
    "token_matmul": (by_kernel(token_matmul), by_kernel(jnp.matmul)),
    "split_matmul": (by_kernel(split_matmul), by_kernel(jnp.matmul)),
    **{name: (ACTIVATIONS[name].function, plain) for name, plain in PLAIN_ACTIVATIONS.items()},
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_derivatives_are_the_plain_rules(name):
    """Value, gradient, pushforward, a Hessian's product both ways round, all of them mapped over a batch."""
    rng = np.random.default_rng(0)
    points, directions = jnp.asarray(rng.normal(size=(2, 3, 2, 8)))
    weights = jnp.linspace(-1.0, 2.0, 24).reshape(2, 12)

    def everything(function, x, dx):
        def total(x):
            y = jnp.atleast_2d(jnp.squeeze(function(x)))
            return (jnp.sin(y) * weights[: y.shape[0], : y.shape[1]]).sum()

        slope = jax.grad(total)
        forward_over_reverse = jax.jvp(slope, (x,), (dx,))[1]
        reverse_over_reverse = jax.grad(lambda x: (slope(x) * dx).sum())(x)
        return function(x), slope(x), jax.jvp(function, (x,), (dx,))[1], forward_over_reverse, reverse_over_reverse

    ours, plain = (
        jax.jit(jax.vmap(functools.partial(everything, function)))(points, directions) for function in PAIRS[name]
    )
    for found, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_gelu_and_its_gradient_need_no_memory_beside_their_results():
    """jax.nn.gelu's needs two arrays more, which a backward pass that is far away keeps until then.

    Less than one array and more than one, lest the test hang on the compiler's last byte.
    """
    array = jax.ShapeDtypeStruct((256, 256), jnp.float32)

    def memory(function):
        def both(x, g):
            y, back = jax.vjp(function, x)
            return y, back(g)[0]

        return jax.jit(both).lower(array, array).compile().memory_analysis().temp_size_in_bytes

    plain = memory(functools.partial(jax.nn.gelu, approximate=False))
    assert memory(ACTIVATIONS["gelu"].function) < 4 * array.size < plain


def test_a_row_without_an_allowed_column_does_not_depend_on_its_logits():
    slope = jax.grad(lambda x: (masked_softmax(x, jnp.zeros((1, 3), bool)) @ jnp.arange(3.0)).sum())
    assert not slope(jnp.array([[1.0, 2.0, 3.0]])).any()


def test_the_gradient_at_every_site_is_the_difference_quotient():
    model, batch = small_encoder(), small_batch("classification").batch
    sites = jaxsmooth.SITES

    def total(sizes):
        def push(size, layer, value):
            return value + size * jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)

        edits = {site: functools.partial(push, size) for site, size in zip(sites, sizes, strict=True)}
        hidden, _ = jaxsmooth.encode(model, batch, edits=jaxsmooth.Edits(**edits), collect=lambda trace: ())
        return jnp.sin(hidden).sum()

    at, step = np.full(len(sites), 0.01), 1e-5
    found = np.asarray(jax.jit(jax.grad(total))(at))
    above, below = (jax.jit(jax.vmap(total))(at[None] + side * np.eye(len(sites))) for side in (step, -step))
    quotient = (np.asarray(above) - np.asarray(below)) / (2 * step)
    np.testing.assert_allclose(found, quotient, rtol=1e-6, atol=1e-6 * np.abs(quotient).max())
    assert np.count_nonzero(found) == len(sites)


def test_what_a_layer_keeps_for_the_backward_pass():
    """Numbers a layer: its input, queries, keys, values, probabilities, contexts, both standardised sums and stds, the
    MLP's input, slopes and activations; no intermediate of softmax, LayerNorm or GELU."""
    data, model = small_batch("classification"), small_model("classification")
    b, t = data.batch.mask.shape
    d, heads, wide = SMALL.width, SMALL.heads, SMALL.mlp_width
    kept = b * t * (d + 3 * d + heads * t + d + 2 * d + 2 + d + 2 * wide)
    of_parameters = 4 * d * d + 2 * d  # kernels of the attention as matrices, gains as rows
    program = jax.make_jaxpr(make_trainer("classification", model).gradients)(model, data)
    assert stacked(program.jaxpr)[0] == kept + of_parameters


def stacked(jaxpr) -> list[int]:
    """Numbers a layer that the scans of a program hand on for every step, in order."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            outs = equation.outvars[equation.params["num_carry"] :]
            found.append(sum(int(np.prod(out.aval.shape[1:])) for out in outs))
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                found += stacked(inner.jaxpr)
    return found
