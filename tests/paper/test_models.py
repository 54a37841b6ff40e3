"""The model that shares one block, and what is measured of a trained one, against plain numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import TASKS

import jaxsmooth
from experiments.paper.measures import smoothness
from experiments.paper.settings import run_settings
from experiments.paper.shared import shared_model
from jaxsmooth.bert.fusion import GateFusion
from jaxsmooth.training.model import TaskModel
from jaxsmooth.training.optimiser import learning_rate, make_optimiser
from jaxsmooth.training.step import Trainer
from jaxsmooth.types import named_leaves

TEXTS = ["A film worth seeing, and seeing again.", "Dull."]


def test_a_model_that_shares_its_first_block(tmp_path):
    model, _ = jaxsmooth.load("tiny")
    path = shared_model("tiny", tmp_path)
    again, _ = jaxsmooth.load(path, check=False)
    assert (again.config.family, again.config.shared_layers) == ("albert", True)
    assert again.config.layers == model.config.layers > 1
    ours, theirs = named_leaves(again), named_leaves(model)
    np.testing.assert_array_equal(ours.pop("embeddings.projection.kernel"), np.eye(model.config.width))
    assert not np.any(ours.pop("embeddings.projection.bias"))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name][:1] if name.startswith("blocks.") else theirs[name])
    written = (path / "model.safetensors").stat().st_mtime_ns
    assert shared_model("tiny", tmp_path) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == written  # made once


@pytest.mark.long
def test_one_block_in_all_places(tmp_path):
    model, tokenizer = jaxsmooth.load("tiny")
    again, its_tokenizer = jaxsmooth.load(shared_model("tiny", tmp_path))
    batch = its_tokenizer(TEXTS)
    np.testing.assert_array_equal(batch.tokens, tokenizer(TEXTS).tokens)
    blocks = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], model.config.layers, axis=0), model.blocks)
    expected = jaxsmooth.encode(dataclasses.replace(model, blocks=blocks), batch)[0]
    found = jaxsmooth.encode(again, batch)[0]
    np.testing.assert_allclose(*(np.asarray(x)[np.asarray(batch.mask)] for x in (found, expected)), atol=1e-6)


@pytest.mark.long
def test_smoothness_of_plain_arrays():
    encoder, tokenizer = jaxsmooth.load("tiny")
    layers, width = encoder.config.layers, encoder.config.width
    fusion = GateFusion(jnp.asarray(np.random.default_rng(0).normal(size=width), jnp.float32), tuple(range(layers)))
    model = TaskModel(encoder=encoder, head=None, fusion=fusion)
    config = run_settings("movie-reviews", "tiny", 0)
    trainer = Trainer(TASKS["classification"], config, make_optimiser(config, model, 1), learning_rate(config, 1))
    batch = tokenizer(TEXTS)
    found = smoothness(trainer, model, batch)

    names = ("hidden", "std_attn", "std_mlp")
    _, traces = jaxsmooth.encode(encoder, batch, collect=lambda trace: tuple(getattr(trace, name) for name in names))
    hidden, first, second = (np.asarray(trace, np.float64) for trace in traces)
    mask = np.asarray(batch.mask)
    scores = hidden @ np.asarray(fusion.weight, np.float64)
    gates = np.exp(scores - scores.max(axis=0))
    gates /= gates.sum(axis=0)
    products, distances = np.zeros((layers, 2)), np.zeros((layers + 1, 2))
    for text, real in enumerate(mask):
        states = [*hidden[:, text, real], (gates[..., None] * hidden).sum(axis=0)[text, real]]
        for place, tokens in enumerate(states):
            distances[place, text] = np.linalg.norm(tokens - tokens.mean(axis=0)) / np.linalg.norm(tokens)
        products[:, text] = first[:, text, real, 0].min(axis=1) * second[:, text, real, 0].min(axis=1)
    np.testing.assert_allclose(found["std_product"], products.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["std_product_texts"], products[-1], rtol=1e-4)
    np.testing.assert_allclose(found["relative_distance"][1:], distances[:-1].mean(axis=1), rtol=1e-4)
    assert found["fused"]["relative_distance"] == pytest.approx(distances[-1].mean(), rel=1e-4)
    np.testing.assert_allclose(found["importance"], gates[:, mask].mean(axis=1), rtol=1e-4)
