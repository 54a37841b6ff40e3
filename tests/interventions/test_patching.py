"""Recorded values put into another run, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.edited_runs import BATCH, LENGTHS, MODEL, SOURCE, in_numpy, run
from support.models import CONFIG

import jaxsmooth
from jaxsmooth import Edits, interventions
from jaxsmooth.errors import OptionError
from jaxsmooth.types import SITES


def test_a_recording_put_back_changes_nothing():
    recorded = interventions.record(MODEL, SOURCE, SITES)
    target = run(Edits())
    same = interventions.record(MODEL, BATCH, SITES)
    np.testing.assert_allclose(run(interventions.patch(same)), target, rtol=0, atol=1e-11)
    # Recorded queries and keys are those that the scores are made of.
    scores = np.einsum("lbnth,lbnsh->lbnts", recorded["query"], recorded["key"]) / 2
    np.testing.assert_allclose(recorded["attn_logits"], scores, rtol=0, atol=1e-12)
    # One site at a time: each takes effect by itself.
    for site in ("query", "key", "attn_logits", "scale_attn", "std_mlp"):
        other = run(interventions.patch({site: recorded[site] * 1.5}))
        assert np.abs(other[-1] - target[-1]).max() > 1e-3, site
    # The whole residual stream at one layer: from there on the target is the source.
    source = run(Edits(), SOURCE)
    for site, layers in (("hidden", 0), ("pre_mlp", 0), ("embedded", -1)):
        patched = run(interventions.patch({site: recorded[site]}, layers=layers))
        np.testing.assert_allclose(patched, source, rtol=0, atol=1e-11, err_msg=site)


def test_an_edited_run_can_be_recorded():
    edits = interventions.scale("mixed", 0.0, layers=1)
    recorded = interventions.record(MODEL, SOURCE, ["mixed", "embedded"], edits=edits)
    assert np.all(recorded["mixed"][1] == 0)
    assert np.any(recorded["mixed"][0] != 0)
    np.testing.assert_array_equal(recorded["embedded"][2], jaxsmooth.embed(MODEL, SOURCE))


def test_patching_one_heads_context_against_numpy():
    effect = interventions.patch_effect(
        MODEL, SOURCE, BATCH, ["context"], layers=1, heads=[2], readout=lambda h, batch: h[:, 0] @ jnp.ones((12, 2))
    )
    for b, n in enumerate(LENGTHS):
        other = {}

        def listen(layer, site, value, other=other):
            if (layer, site) == (1, "context"):
                other["context"] = value
            return value

        in_numpy(b, listen, SOURCE)

        def edit(layer, site, value, other=other):
            if (layer, site) == (1, "context"):
                value = value.copy()
                value[2] = other["context"][2]
            return value

        difference = in_numpy(b, edit)[-1] - in_numpy(b, lambda layer, site, value: value)[-1]
        np.testing.assert_allclose(effect.hidden[b, :n], difference, rtol=0, atol=1e-11)
        np.testing.assert_allclose(effect.readout[b], np.full(2, difference[0].sum()), rtol=0, atol=1e-10)
    assert np.abs(effect.hidden).max() > 1e-3


@pytest.mark.parametrize(("site", "over", "count"), [("attn", "heads", 3), ("hidden", "tokens", 8)])
def test_a_map_of_patches_is_each_patch(site, over, count):
    found = interventions.patch_map(MODEL, SOURCE, BATCH, site=site, over=over)
    assert found.shape == (CONFIG.layers, count, 2)
    clean = np.asarray(jaxsmooth.encode(MODEL, BATCH)[0])
    real = np.asarray(BATCH.mask)[..., None]
    for layer, index in ((0, 1), (2, 0)):
        effect = interventions.patch_effect(MODEL, SOURCE, BATCH, [site], layers=layer, **{over: index})
        away = np.linalg.norm((np.asarray(effect.hidden) * real).reshape(2, -1), axis=1)
        np.testing.assert_allclose(found[layer, index], away / np.linalg.norm((clean * real).reshape(2, -1), axis=1))
    if over == "tokens":  # a padded token reaches no real one; the map's program may round otherwise than a clean run
        assert np.all(found[:, 3:, 1] <= 8 * np.finfo(np.float64).eps)
    with pytest.raises(OptionError, match="over must be 'heads' or 'tokens'; got 'keys'"):
        interventions.patch_map(MODEL, SOURCE, BATCH, site=site, over="keys")
