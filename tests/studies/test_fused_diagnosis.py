"""Fused layers, diagnosed like any other: against numpy, and in every form of the report."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from support import reference
from support.models import CONFIG, random_model
from support.parity import VOCABULARY
from support.report import spread, synthetic

import jaxsmooth
from jaxsmooth import report
from jaxsmooth.bert.fusion import ConcatFusion, GateFusion, MaxFusion, fuse
from jaxsmooth.cli.main import main
from jaxsmooth.errors import ShapeError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB
from jaxsmooth.results.diagnosis import FusedLayers
from jaxsmooth.results.spread import HIDDEN_METRICS
from jaxsmooth.studies.hidden_states import hidden_measures

TEXTS = ["so be it", "a film", "no", "not at all bad", ""]
RANDOM = np.random.default_rng(2)


@pytest.fixture(scope="module")
def small():
    """A pre-LN model: most of the ladder does not speak of it, and need not be compiled."""
    config = dataclasses.replace(CONFIG, vocab=TINY_VOCAB, max_length=16, layers=3, placement="pre")
    return random_model(config), jaxsmooth.Tokenizer.tiny(config)


@pytest.fixture(scope="module")
def stacked(small):
    """Every block's output, [L B T D], and the mask."""
    model, tokenizer = small
    batch = tokenizer(TEXTS)
    return np.asarray(jaxsmooth.encode(model, batch)[1].hidden), np.asarray(batch.mask)


def expected(name: str, fused: list[np.ndarray]) -> np.ndarray:
    measure = {"cosine_similarity": reference.token_cosine_similarity}.get(name) or getattr(reference, name)
    return np.array([measure(x) for x in fused])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_trained_gate_is_measured_and_its_weights_are_returned(small, stacked):
    weight = RANDOM.standard_normal(CONFIG.width)
    fusion = GateFusion(jnp.asarray(weight), (0, 2), "sigmoid")
    found = jaxsmooth.diagnose(*small, TEXTS, fusion=fusion, tokens_per_batch=64)
    fused, gates = [], []
    for states, mask in zip(np.moveaxis(stacked[0], 1, 0), stacked[1], strict=True):
        chosen = states[[0, 2]][:, mask]
        gates.append(1 / (1 + np.exp(-chosen @ weight)))
        fused.append((gates[-1][..., None] * chosen).sum(axis=0))
    assert set(found.fused.measures) == set(HIDDEN_METRICS)
    for name in HIDDEN_METRICS:
        values = expected(name, fused)
        own = found.fused.measures[name]
        np.testing.assert_allclose(own.mean, [np.nanmean(values)], rtol=1e-10, err_msg=name)
        np.testing.assert_allclose([*own.min, *own.max], [np.nanmin(values), np.nanmax(values)], rtol=1e-10)
    assert (found.fused.layers, found.fused.label) == ((1, 3), "sum of 2 layers with sigmoid gates")
    np.testing.assert_allclose(found.fused.gates.mean, np.mean([g.mean(axis=1) for g in gates], axis=0), rtol=1e-10)
    for field, whole in (("min", np.min), ("max", np.max)):
        extreme = whole([whole(g, axis=1) for g in gates], axis=0)
        np.testing.assert_allclose(getattr(found.fused.gates, field), extreme, rtol=1e-10)


def test_a_concatenation_is_measured_where_tokens_are_real(stacked):
    kernel = RANDOM.standard_normal((2, CONFIG.width, CONFIG.width))
    hidden, mask = stacked
    fused = [
        np.einsum("ltd,lde->te", states[:2][:, m], kernel)
        for states, m in zip(hidden.swapaxes(0, 1), mask, strict=True)
    ]
    fusion = ConcatFusion(jnp.asarray(kernel), (0, 1))
    measure = jax.jit(lambda hidden: hidden_measures(fuse(fusion, hidden)[0], jnp.asarray(mask)))
    for junk in (hidden, np.where(mask[..., None], hidden, 1e3)):
        found = measure(jnp.asarray(junk))
        for name in HIDDEN_METRICS:
            np.testing.assert_allclose(found[name], expected(name, fused), rtol=1e-9, err_msg=name)


def test_a_layer_that_does_not_exist_cannot_be_fused(small):
    with pytest.raises(ShapeError, match="at least 6; got 3"):
        jaxsmooth.diagnose(*small, TEXTS, fusion=MaxFusion((0, 5)), tokens_per_batch=64)


@pytest.mark.long
def test_the_command_reports_one_more_row(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, vocab=len(VOCABULARY), max_length=16, placement="pre")
    jaxsmooth.save(random_model(config, dtype=jnp.float32), tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "lines.txt").write_text("bad cab\nab abc abcd\nt\nq r s t\n")
    arguments = [str(tmp_path), "--data", str(tmp_path / "lines.txt"), "--out", str(tmp_path), "--fusion", "max"]
    assert main(["diagnose", *arguments]) == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["fused"]["label"], told["fused"]["layers"]) == ("maximum of 3 layers", [1, 2, 3])
    assert set(told["fused"]) == {"label", "layers", "spread", *HIDDEN_METRICS}
    assert told["fused"]["spread"]["token_norm"]["count"] == 4
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row">fused</th>' in page
    assert "The last row is no layer: maximum of 3 layers." in page
    printed = capsys.readouterr().out
    assert "fused" in printed.split("Layer 0 is")[0]
    assert "Fused: maximum of 3 layers." in printed


def test_gates_are_told_in_every_form(tmp_path):
    one = {name: spread([0.5]) for name in HIDDEN_METRICS}
    gated = FusedLayers("sum of 2 layers with softmax gates", (1, 3), one, spread([0.25, 0.75]))
    diagnosis = synthetic(3, 2, fused=gated)
    told = report.to_json(diagnosis)["fused"]
    assert (told["gates"], told["layers"]) == ([0.25, 0.75], [1, 3])
    words = "sum of 2 layers with softmax gates (how much each layer counts, mean over tokens: 1: 0.250, 3: 0.750)"
    assert f"The last row is no layer: {words}." in report.render_page(diagnosis)
    console = Console(width=120, record=True, file=io.StringIO())
    report.print_diagnosis(diagnosis, console)
    assert f"Fused: {words}." in " ".join(console.export_text().split())
    assert "fused" not in report.to_json(synthetic(3, 2))
    assert "The last row is no layer" not in report.render_page(synthetic(3, 2))
