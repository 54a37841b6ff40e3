"""`jaxsmooth.rates`: the ladder of a batch in one call, against `diagnose`'s own, and its derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import CONFIG, random_model

import jaxsmooth
from jaxsmooth import family_config, interventions
from jaxsmooth.results.summaries import RATES
from jaxsmooth.studies.measurements import measure_batch, model_norms, model_spectra

MODEL = random_model(dataclasses.replace(CONFIG, layers=2))
TOKENS = np.random.default_rng(0).integers(1, MODEL.config.vocab, (3, 6))
MASK = np.arange(6) < np.array([[6], [4], [1]])
BATCH = jaxsmooth.Batch(tokens=jnp.asarray(TOKENS), segments=jnp.zeros((3, 6), jnp.int32), mask=jnp.asarray(MASK))


@pytest.fixture(scope="module")
def found():
    return jaxsmooth.rates(MODEL, BATCH)


def total(model):
    """Every rung counts alike, whatever its size; the sentence of one token is left out by its NaN."""
    return sum(jnp.nanmean(jnp.log(values)) for values in jaxsmooth.rates(model, BATCH).values())


def test_the_ladder_in_its_order(found):
    assert tuple(found) == RATES
    assert all(values.shape == (2, 3) and values.dtype == jnp.float64 for values in found.values())
    assert all(np.isnan(values[:, 2]).all() for values in found.values())  # one token alone
    ladder = np.stack([values[:, :2] for values in found.values()])
    assert np.all(np.diff(ladder, axis=0) >= -1e-9 * ladder[1:])


@pytest.mark.long
def test_the_derivative_in_reverse_is_that_of_finite_differences(found):
    rng = np.random.default_rng(1)
    way = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), MODEL)
    slope = jax.jit(jax.grad(total))(MODEL)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    along = sum(float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way), strict=True))
    step = 1e-6
    up, down = (total(jax.tree.map(lambda a, b, size=size: a + size * b, MODEL, way)) for size in (step, -step))
    assert along == pytest.approx(float((up - down) / (2 * step)), rel=1e-5)


@pytest.mark.long
def test_the_rates_are_those_of_a_diagnosis(found):
    measured = jax.jit(lambda m: measure_batch(m, model_norms(m), BATCH, None, model_spectra(m)))(MODEL)
    for name, values in found.items():
        np.testing.assert_allclose(values, measured[name], rtol=1e-8)


@pytest.mark.long
def test_the_derivative_forwards_is_that_in_reverse():
    rng = np.random.default_rng(1)
    way = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), MODEL)
    slope = jax.jit(jax.grad(total))(MODEL)
    along = sum(float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way), strict=True))
    forward = jax.jit(lambda: jax.jvp(total, (MODEL,), (way,))[1])()
    assert along == pytest.approx(float(forward), rel=1e-6)


@pytest.mark.long
def test_a_bound_whose_hypotheses_an_edit_breaks_has_no_value(found):
    mixed = jaxsmooth.rates(MODEL, BATCH, edits=interventions.scale("mixed", 0.5))
    plain = {name for name, values in mixed.items() if np.isfinite(values[:, :2]).all()}
    assert plain == {"actual", "L5", "L4"}
    assert not np.allclose(mixed["actual"][:, :2], found["actual"][:, :2])
    after = jaxsmooth.rates(MODEL, BATCH, edits=interventions.scale("mlp", 0.5))
    assert {name for name, values in after.items() if np.isfinite(values[:, :2]).all()} == {"actual"}


@pytest.mark.long
def test_only_the_rungs_that_are_proved_for_the_blocks():
    config = family_config("gpt2", vocab=30, width=8, layers=2, heads=2, mlp_width=16, max_length=12, pad_token=0)
    model = jaxsmooth.init_encoder(config, jax.random.key(0))
    batch = jaxsmooth.Batch(tokens=jnp.arange(4, dtype=jnp.int32)[None], mask=jnp.ones((1, 4), bool))
    found = jaxsmooth.rates(model, batch)
    assert {name for name, values in found.items() if np.isfinite(values).all()} == {"actual", "L1"}
