"""The norm of the block operator, L3: against the dense matrix, and in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blocks import EVERY, LENGTH, RTOL, random_state
from support.matrices import centring

from jaxsmooth import theory
from jaxsmooth.theory.block.attention_operator import TOLERANCE as STOP
from jaxsmooth.types import Block


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_operator_rate_is_the_dense_norm_and_data_rate_attains_it(seed):
    weights, state = random_state(np.random.default_rng(seed))
    norms = EVERY["norms"](weights)
    found, eigenvalue = EVERY["L3"](weights, norms, state)
    worst = []
    for b, length in enumerate(np.asarray(state.mask).sum(axis=1)):
        dense = dense_operator(weights, state, b, length)
        _, values, right = np.linalg.svd(dense)
        assert float(found[b]) == pytest.approx(values[0] * float(norms.mlp * norms.gain_mlp), rel=RTOL)
        assert float(eigenvalue.residual[b]) <= 1e-9 * values[0] ** 2
        worst.append(np.pad(right[0].reshape(length, -1), ((0, LENGTH - length), (0, 0))))
    worst = np.stack(worst)
    mixed = np.einsum("bnts,bsd,dnh,nhe->bte", state.attn, worst, weights.attn.value.kernel, weights.attn.output.kernel)
    attained = EVERY["L4"](norms, state._replace(input=jnp.asarray(worst), pre_attn=jnp.asarray(worst + mixed)))
    np.testing.assert_allclose(attained, found, rtol=1e-7)


def dense_operator(weights: Block, state: theory.BlockState, b: int, length: int) -> np.ndarray:
    """X -> L_P^(1/2) J (X + sum_h A_h X W_h) C restricted to centred X, as one matrix."""
    inverse = 1 / np.asarray(state.std_attn * state.std_mlp)[b, :length, 0]
    laplacian = (np.diag(inverse) * inverse.sum() - np.outer(inverse, inverse)) / length
    values, vectors = np.linalg.eigh(laplacian)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    feature, token = centring(weights.attn.value.kernel.shape[0]), centring(length)
    total = np.kron(root @ token, feature)
    for h in range(weights.attn.value.kernel.shape[1]):
        head = np.asarray(weights.attn.value.kernel[:, h] @ weights.attn.output.kernel[h])
        total = total + np.kron(root @ np.asarray(state.attn)[b, h, :length, :length] @ token, (head @ feature).T)
    return total


def test_single_precision_is_close_to_double():
    weights, state = random_state(np.random.default_rng(3))
    norms = EVERY["norms"](weights)
    exact = np.asarray(EVERY["L3"](weights, norms, state)[0])
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, (weights, norms, state))
    rough, eigenvalue = EVERY["L3"](*single)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=1e-3)
    assert np.all(eigenvalue.residual <= 5 * STOP[4] * np.asarray(eigenvalue.value))
