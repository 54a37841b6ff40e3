"""Spectra of weights against plain singular value decompositions, for models of every form of block."""

import jax
import numpy as np
import pytest

import jaxsmooth
from jaxsmooth.studies.weights import principal_subspaces, weight_spectra

SMALL = {"vocab": 12, "width": 24, "layers": 3, "heads": 4, "mlp_width": 40, "max_length": 12, "pad_token": 0}
FORMS = {"albert": {"embedding_width": 4}, "modernbert": {}}  # shared blocks; a gated MLP


@pytest.mark.parametrize("family", FORMS)
def test_every_matrix_against_numpys_svd(family):
    config = jaxsmooth.family_config(family, **SMALL, **FORMS[family])
    model = jaxsmooth.init_encoder(config, jax.random.key(0))
    found = weight_spectra(model, principal_subspaces(model))
    attn = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.blocks.attn)
    assert ("gate" in found.matrices) == (model.blocks.gate is not None)
    for layer in range(3):
        own = 0 if config.shared_layers else layer
        heads = range(4)
        q, k, v, o = (part.kernel[own] for part in (attn.query, attn.key, attn.value, attn.output))
        expected = {
            "query_key": sum(q[:, h] @ k[:, h].T for h in heads),
            "value_output": sum(v[:, h] @ o[h] for h in heads),
            "up": np.asarray(model.blocks.up.kernel[own], np.float64),
            "down": np.asarray(model.blocks.down.kernel[own], np.float64),
        }
        for name, matrix in expected.items():
            values, one = np.linalg.svd(matrix, compute_uv=False), found.matrices[name]
            np.testing.assert_allclose(one.singular_values[layer], values[:5], rtol=1e-10)
            np.testing.assert_allclose(one.stable_rank[layer], np.sum(values**2) / values[0] ** 2, rtol=1e-10)
            assert 1 < one.tail[layer] <= one.count[layer] <= min(matrix.shape)
            assert one.error[layer] == pytest.approx((one.alpha[layer] - 1) / one.tail[layer] ** 0.5)
        moduli = np.sort(np.abs(np.linalg.eigvals(expected["value_output"])))[::-1]
        assert abs(found.eigenvalue[layer]) == pytest.approx(moduli[0], rel=1e-9)
        assert found.runner_up[layer] == pytest.approx(moduli[1 + (found.eigenvalue[layer].imag != 0)], rel=1e-9)


def test_chance_is_that_of_random_directions():
    model, _ = jaxsmooth.load("tiny")
    principal = principal_subspaces(model)
    found = weight_spectra(model, principal)
    draws = np.random.default_rng(0).standard_normal((40_000, model.config.width))
    shares = np.linalg.norm(np.einsum("td,lrd->ltr", draws, principal.frame), axis=-1)
    np.testing.assert_allclose(found.chance, (shares / np.linalg.norm(draws, axis=-1)).mean(axis=1), rtol=0.02)


def test_weights_of_zero_have_no_spectrum():
    """And W_V of zero no principal direction, so that no token can lie along it."""
    model, _ = jaxsmooth.load("tiny")
    empty = jax.tree.map(lambda leaf: 0 * leaf, model)
    principal = principal_subspaces(empty)
    found = weight_spectra(empty, principal)
    assert np.isnan([found.chance, principal.frame[:, 0, 0]]).all()
    for one in found.matrices.values():
        assert np.isnan([one.stable_rank, one.alpha, one.distance]).all()
        assert (one.singular_values == 0).all()
        assert (one.tail == 0).all()
