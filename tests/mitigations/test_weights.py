"""Value and output maps with a definite product."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsmooth import mitigations as ours

WIDTH = 5


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_definite_form_is_definite_for_all_parameters(sign):
    random = np.random.default_rng(0)
    lower, raw = random.standard_normal((2, WIDTH, WIDTH)), 3 * random.standard_normal((2, WIDTH))
    found = ours.definite_matrix(jnp.asarray(lower), jnp.asarray(raw), sign)
    for one, delta, mine in zip(lower, raw, np.asarray(found), strict=True):
        unit = np.tril(one, -1) + np.eye(WIDTH)
        np.testing.assert_allclose(mine, sign * unit @ np.diag(np.log1p(np.exp(delta))) @ unit.T, rtol=0, atol=1e-12)
        assert np.all(sign * np.linalg.eigvalsh(mine) > 0)
