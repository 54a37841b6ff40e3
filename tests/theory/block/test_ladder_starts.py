"""Where block Lanczos starts on the block operator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from support.blocks import EVERY, random_state

from jaxsmooth.theory.block.attention_operator import TOLERANCE as STOP
from jaxsmooth.theory.block.ladder_starts import leading_features


def test_leading_features_carry_most():
    weights, _ = random_state(np.random.default_rng(0))
    narrow = np.asarray(jax.jit(functools.partial(leading_features, count=2))(weights))
    np.testing.assert_allclose(narrow.T @ narrow, np.eye(2), atol=1e-12)
    value, output = (np.asarray(side.kernel) for side in (weights.attn.value, weights.attn.output))
    centred = output - output.mean(axis=-1, keepdims=True)
    heads = [value[:, h] @ centred[h] for h in range(len(centred))]
    gram = sum(head @ head.T for head in heads)
    top = np.linalg.eigvalsh(gram)[-2:].sum()
    assert np.trace(narrow.T @ gram @ narrow) >= 0.9 * top


def test_single_precision_is_close_to_double():
    weights, state = random_state(np.random.default_rng(3))
    norms = EVERY["norms"](weights)
    exact = np.asarray(EVERY["L3"](weights, norms, state)[0])
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, (weights, norms, state))
    rough, eigenvalue = EVERY["L3"](*single)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=1e-3)
    assert np.all(eigenvalue.residual <= 5 * STOP[4] * np.asarray(eigenvalue.value))
