"""report.json, on synthetic diagnoses, and the pooling of heads."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.report import blank, rates, spread, synthetic, undefined

from jaxsmooth.files import dumps_strict
from jaxsmooth.report import to_json
from jaxsmooth.report.format import over_heads
from jaxsmooth.results.spread import Spread
from jaxsmooth.results.summaries import RATES


def test_layers_pair_hidden_state_and_block():
    diagnosis = synthetic()
    report = json.loads(dumps_strict(to_json(diagnosis)))
    assert report["schema"] == 1
    assert [layer["layer"] for layer in report["layers"]] == list(range(7))
    assert "rates" not in report["layers"][0]
    for block, layer in enumerate(report["layers"][1:]):
        assert layer["cosine_similarity"] == diagnosis.cosine_similarity.mean[block + 1]
        assert layer["subspace_distance"] == diagnosis.subspace_distance.mean[block + 1]
        assert layer["std_attn_min"] == diagnosis.std_attn.min[block]
        assert layer["std_mlp_min"] == diagnosis.std_mlp.min[block]
        assert layer["mixing_rate_max"] == diagnosis.mixing_rate.max[block].max()
        assert layer["mixing_rate"] == pytest.approx(diagnosis.mixing_rate.mean[block].mean(), rel=1e-14)
        assert layer["heads"]["mixing_rate"] == diagnosis.mixing_rate.mean[block].tolist()
        for name in ("sink_strength", "first_token_attention"):
            assert layer["heads"][name] == getattr(diagnosis, name).mean[block].tolist()
            assert layer[name] == pytest.approx(getattr(diagnosis, name).mean[block].mean(), rel=1e-14)
        assert list(layer["rates"]) == list(RATES)
        assert layer["rates"] == {name: diagnosis.rates[name].mean[block] for name in RATES}
        assert layer["spread"]["rates"]["L4"]["max"] == diagnosis.rates["L4"].max[block]
        assert layer["spread"]["cosine_similarity"]["count"] == 256
        assert list(layer["attribution"].values()) == diagnosis.attribution.mean[block].tolist()
        assert layer["spread"]["attribution"]["mlp"]["max"] == diagnosis.attribution.max[block, 2]
    assert report["baselines"]["anisotropy"] == diagnosis.anisotropy.tolist()
    untrained = diagnosis.untrained.cosine_similarity.tolist()
    assert (report["baselines"]["untrained"]["texts"], report["baselines"]["untrained"]["cosine_similarity"]) == (
        *(16, untrained),
    )


def test_undefined_values_are_null_and_the_text_is_strict():
    def refuse(constant):
        raise AssertionError(constant)

    report = json.loads(dumps_strict(to_json(blank())), parse_constant=refuse)
    assert report["layers"][0]["cosine_similarity"] is None
    assert report["layers"][1]["rates"]["L0"] is None
    assert report["layers"][1]["mixing_rate_max"] is None
    infinite = to_json(synthetic(rates={**rates(6), "L0": spread(np.full(6, np.inf), 0.0)}))
    assert json.loads(dumps_strict(infinite), parse_constant=refuse)["layers"][1]["rates"]["L0"] is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_to_the_last_bit(value):
    diagnosis = synthetic(1, 1, token_norm=spread([value, 1.0], 0.0), exemplar=None)
    assert json.loads(dumps_strict(to_json(diagnosis)))["layers"][0]["token_norm"] == value


def test_pooling_over_heads_is_pooling_the_samples():
    rng = np.random.default_rng(3)
    samples = [rng.normal(size=size) for size in (5, 9)]
    pooled = np.concatenate(samples)
    row = [np.array([[f(s) for s in samples] + [np.nan]]) for f in (np.mean, np.std, np.min, np.max)]
    got = over_heads(Spread(*row, np.array([[5, 9, 0]])))
    expected = (pooled.mean(), pooled.std(), pooled.min(), pooled.max(), 14)
    assert [x[0] for x in dataclasses.astuple(got)] == pytest.approx(expected, rel=1e-13)


def test_undefined_spread_pools_to_undefined():
    pooled = over_heads(undefined((2, 3)))
    assert np.isnan(pooled.mean).all()
    assert (pooled.count == 0).all()
