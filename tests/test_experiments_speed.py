"""The experiment on speed, at a tiny size, against plain numpy."""

import json

import jax
import numpy as np
import pytest
from support.experiments import load

import jaxsmooth

pytestmark = pytest.mark.long

speed = load("speed")


@pytest.fixture(scope="module")
def tiny() -> tuple:
    model, tokenizer = jaxsmooth.load("tiny")
    return model, tokenizer, ["A dull film.", "No plot at all, and no end.", "Bright and quick.", "Yes."]


def test_turns_are_those_of_plain_arrays(tiny):
    model, tokenizer, texts = tiny
    batch = tokenizer(texts)
    found = speed.turns(model, batch)
    x, mixed = jaxsmooth.encode(model, batch, collect=lambda trace: (trace.input, trace.mixed))[1]
    mask = np.asarray(batch.mask)
    for layer in range(model.config.layers):
        before, added = (np.asarray(part[layer], np.float64)[mask] for part in (x, mixed))
        before, added = (part - part.mean(axis=1, keepdims=True) for part in (before, added))
        after = before + added
        cosines = np.sum(before * after, axis=1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        assert found["attn_turn"][layer] == pytest.approx(np.degrees(np.median(np.arccos(cosines))), rel=1e-3)
        small = np.linalg.norm(added, axis=1) < np.linalg.norm(before, axis=1)
        assert found["attn_small"][layer] == pytest.approx(small.mean())


def test_texts_as_classes(tiny):
    model, tokenizer, texts = tiny
    found = speed.separation(model, tokenizer, texts, np.array([0, 1, 0, 1]))
    states = np.asarray(jaxsmooth.encode(model, tokenizer(texts))[1].hidden, np.float64)[-1]
    own = [state[real] for state, real in zip(states, np.asarray(tokenizer(texts).mask), strict=True)]
    centre = np.concatenate(own).mean(axis=0)
    between = sum(len(x) * np.sum((x.mean(axis=0) - centre) ** 2) for x in own)
    assert found["texts"][-1] == pytest.approx(between / sum(np.sum((x - x.mean(axis=0)) ** 2) for x in own), rel=1e-4)
    means = np.stack([x.mean(axis=0) for x in own])
    inside = sum(np.sum((means[k::2] - means[k::2].mean(axis=0)) ** 2) for k in (0, 1))
    between = sum(2 * np.sum((means[k::2].mean(axis=0) - means.mean(axis=0)) ** 2) for k in (0, 1))
    assert found["separation"][-1] == pytest.approx(between / inside, rel=1e-3)


def test_laws_and_random_encoders(tmp_path):
    args = speed.Args(depth=3, width=32, seeds=2, models=(), labelled=(), out=tmp_path)
    laws = speed.laws(args)
    np.testing.assert_allclose(laws["post"], np.sqrt(3) / 1.5 ** np.arange(4), rtol=1e-6)
    random = speed.random_sweep(args, tokens=3)
    assert set(random) == {"post", "pre", "sandwich"}
    for one in random.values():
        assert np.shape(one["seen"]) == (2, 3)
        assert np.abs(np.mean(one["seen"], axis=0) - one["map"]).max() < 0.5
    plain = jax.tree.map(lambda leaf: leaf, random)
    page = speed.report(args, {"laws": laws, "random": plain, "turns": {}, "separation": {}})
    assert "| Post-LN | " in page
    assert json.loads(json.dumps(laws)) == laws
