"""The card beside a saved model: a head that the hub reads, the model's sizes, and nobody's own words overwritten."""

import jax
import pytest
import yaml

import jaxsmooth
from jaxsmooth.bert.heads import init_head
from jaxsmooth.checkpoints.folders.card import CARD, MARK

SIZES = {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "max_length": 16}


def model(family="bert", **fields):
    config = jaxsmooth.family_config(family, **SIZES, **fields)
    return jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes(config))


def shapes(config):
    return jax.eval_shape(lambda: jaxsmooth.init_encoder(config, jax.random.key(0)))


def front(folder):
    """The YAML at the head of the card, and the rest."""
    text = (folder / CARD).read_text(encoding="utf-8")
    _, head, rest = text.split("---\n", 2)
    return yaml.safe_load(head), rest


def test_an_encoder_has_a_card(tmp_path):
    jaxsmooth.save(model(), tmp_path / "mine")
    head, rest = front(tmp_path / "mine")
    assert head == {"library_name": "transformers", "tags": ["jaxsmooth", "bert"]}
    assert "# mine\n" in rest
    assert "2 layers, 2 heads, width 16, MLP width 32" in rest
    assert f"jaxsmooth {jaxsmooth.__version__}" in rest


def test_what_transformers_does_not_read_is_no_model_of_its(tmp_path):
    jaxsmooth.save(model(placement="sandwich"), tmp_path)
    head, rest = front(tmp_path)
    assert head["library_name"] == "jaxsmooth"
    assert "transformers read" not in rest


@pytest.mark.parametrize(
    ("kind", "pipeline"), [("classification", "text-classification"), ("masked_lm", "fill-mask"), ("choice", None)]
)
def test_a_head_names_its_pipeline(kind, pipeline, tmp_path):
    encoder = model()
    labels = {"labels": 2} if kind == "classification" else {}
    head = jax.eval_shape(lambda: init_head(encoder.config, kind, jax.random.key(0), **labels))
    filled = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), head)
    jaxsmooth.save_with_head(encoder, filled, tmp_path)
    found, rest = front(tmp_path)
    assert found.get("pipeline_tag") == pipeline
    assert "load_with_head" in rest


def test_a_card_of_somebodys_own_stays(tmp_path):
    (tmp_path / CARD).write_text("My model.\n")
    jaxsmooth.save(model(), tmp_path)
    assert (tmp_path / CARD).read_text() == "My model.\n"
    (tmp_path / CARD).write_text(f"{MARK} -->\nof yesterday\n")
    jaxsmooth.save(model(), tmp_path)
    assert "of yesterday" not in (tmp_path / CARD).read_text()
