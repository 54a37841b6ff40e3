"""Where block Lanczos starts on the block operator."""

import functools

import jax
import numpy as np
from support.blocks import random_state

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
