"""The experiment on loops: what it says of a layer with recall, and how it writes numbers."""

import jax
import jax.numpy as jnp
import loops
import numpy as np

import jaxsmooth


def test_a_state_at_rest_lies_between_its_two_distances():
    model, tokenizer = jaxsmooth.load("tiny")
    batch = tokenizer(["A sentimental mess that never rings true.", "Dull and long, but not without charm."])
    start = jaxsmooth.embed(model, batch)
    run = jax.jit(lambda x: loops.looped(model, x, batch.mask, jnp.int32(0), 80))
    found = {key: np.asarray(value) for key, value in run(start).items()}
    assert np.all(found["at rest"])
    assert np.all(found["change"] <= 1e-5)
    tokens = [np.asarray(x)[real] for x, real in zip(start, np.asarray(batch.mask), strict=True)]
    distance = [np.linalg.norm(x - x.mean(axis=0)) for x in tokens]
    np.testing.assert_allclose(found["d_M of U"], distance, rtol=1e-5)
    assert np.all(found["lower end"] <= found["d_M"] * (1 + 1e-5))
    assert np.all(found["d_M"] <= found["upper end"] * (1 + 1e-5))
    assert np.all(found["lower end"] > 0.3 * found["d_M"])


def test_a_cell_is_the_median_with_its_range():
    assert loops.cell([3.0, 1.0, 2.0]) == "2 [1, 3]"
    assert loops.cell([2.0, 2.0]) == "2"
    assert loops.table([{"v": [0.25]}], 1, ("v",)).splitlines()[-1] == "| 1 | 0.25 |"
