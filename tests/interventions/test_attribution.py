"""Attribution of a layer's change to its parts, against the change over each step."""

import dataclasses
import inspect

import numpy as np
import pytest
from support import reference
from support.edited_runs import BATCH, LENGTHS, MODEL, WEIGHTS
from support.models import CONFIG, hugging_face, random_batch, random_model

import jaxsmooth
from jaxsmooth import compose, interventions
from jaxsmooth.errors import OptionError


def log_distance(x: np.ndarray) -> float:
    return np.log(np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x))


def test_attribution_is_the_change_over_each_step():
    found = np.asarray(interventions.attribution(MODEL, BATCH))
    assert found.shape == (CONFIG.layers, 4, 2)
    plain = np.asarray(interventions.attribution(MODEL, BATCH, measure="relative_distance"))
    for b, n in enumerate(LENGTHS):
        run_ = reference.forward(
            *hugging_face(MODEL), np.asarray(BATCH.tokens[b, :n]), np.asarray(BATCH.segments[b, :n])
        )
        for layer in range(CONFIG.layers):
            gain, shift = WEIGHTS.norm(f"encoder.layer.{layer}.attention.output.LayerNorm")
            y, _ = reference.normalise(run_.pre_attn[layer], gain, shift, CONFIG.eps)
            steps = [run_.hidden[layer], run_.pre_attn[layer], y, run_.pre_mlp[layer], run_.hidden[layer + 1]]
            logs = [log_distance(x) for x in steps]
            np.testing.assert_allclose(found[layer, :, b], np.diff(logs), rtol=0, atol=1e-11)
            np.testing.assert_allclose(plain[layer, :, b], np.diff(np.exp(logs)), rtol=0, atol=1e-11)
        # The parts of all layers add up to what the whole encoder did.
        total = log_distance(run_.hidden[-1]) - log_distance(run_.hidden[0])
        np.testing.assert_allclose(found[..., b].sum(), total, rtol=0, atol=1e-11)
    longer = random_batch(LENGTHS, 11)
    longer = dataclasses.replace(
        longer, tokens=longer.tokens.at[:, :8].set(BATCH.tokens), segments=longer.segments.at[:, :8].set(BATCH.segments)
    )
    np.testing.assert_allclose(interventions.attribution(MODEL, longer), found, rtol=0, atol=1e-11)


def test_attribution_under_edits_and_in_a_pre_ln_encoder():
    silent = compose(interventions.scale("mixed", 0.0, layers=1), interventions.scale("mlp", 0.0, layers=1))
    found = np.asarray(interventions.attribution(MODEL, BATCH, edits=silent))
    assert np.all(np.abs(found[1, [0, 2]]) < 1e-12)  # nothing was added, so nothing changed there
    assert np.abs(found[1, 1]).max() > 1e-3
    pre = random_model(dataclasses.replace(CONFIG, placement="pre"))
    found = np.asarray(interventions.attribution(pre, BATCH, measure="log_subspace_distance"))
    assert np.all(found[:, [1, 3]] == 0)
    hidden = np.asarray(jaxsmooth.encode(pre, BATCH)[1].hidden)[-1, 0, :7]
    first = np.asarray(jaxsmooth.embed(pre, BATCH))[0, :7]
    whole = np.log(np.linalg.norm(hidden - hidden.mean(0)) / np.linalg.norm(first - first.mean(0)))
    np.testing.assert_allclose(found[..., 0].sum(), whole, rtol=0, atol=1e-11)
    lone = random_batch((1,), 4)
    assert np.isnan(interventions.attribution(MODEL, lone, measure="log_subspace_distance")).all()
    with pytest.raises(OptionError, match="measure must be one of log_relative_distance"):
        inspect.unwrap(interventions.attribution)(MODEL, BATCH, measure="cosine")
