"""The experiments on iterated attention and on matrix-free spectra, small, against numpy."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from support.experiments import load

converge_heads, every_input, spectra = load("converge_heads"), load("every_input"), load("spectra")


def test_spectra_agree_with_the_matrix_itself():
    """Lanczos and Arnoldi on attention that is never formed against numpy's SVD and eigenvalues, and the page."""
    args = dataclasses.replace(spectra.Args(), tokens=(48,), width=8, steps=48)
    rows = [spectra.measure(args, *head) for head in spectra.synthetic(args)]
    assert [row["kind"] for row in rows] == ["gaussian", "shared gaussian"]
    for row in rows:
        assert row["mixing_rate"] == pytest.approx(row["numpy_mixing_rate"], rel=1e-4)
        assert row["ritz_modulus"][0] == pytest.approx(row["numpy_slem"], rel=1e-3)
        assert f"{row['mixing_rate']:.5f}" in spectra.table(rows)


@pytest.mark.long
def test_every_head_is_iterated_and_counted(tmp_path):
    """The summary against a count by hand, on the built-in model."""
    args = dataclasses.replace(converge_heads.Args(), data="tiny", limit=3, steps=32, models=("tiny",), out=tmp_path)
    with jax.enable_x64(True):
        found = converge_heads.iterate_heads(args, "tiny")
    summary = converge_heads.summarise(found)
    layers, operators, sentences, heads = found["classes"].shape
    assert (operators, sentences) == (4, 3)
    for place, mask in enumerate(("full", "causal", "window", "symmetric")):
        assert summary[mask]["cases"] == layers * sentences * heads
        held = np.asarray(found["ergodicity_held"])[:, place]
        assert summary[mask]["held"]["ergodicity_held"] == held.mean() == 1
        off = np.abs(found["observed_rate"] - found["predicted_rate"])[:, place]
        assert summary[mask]["rate_error"][2] == pytest.approx(np.median(off))
    converge_heads.draw({"tiny": found}, args, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "tiny | window" in converge_heads.table({"tiny": summary})


def test_bounds_written_elsewhere_are_not_the_librarys(tmp_path, monkeypatch):
    """Bounds over every input: what the library quotes is written with the committed results only."""
    found = json.loads((every_input.RESULTS / "every_input.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(every_input, "STORED", tmp_path / "stored.json")
    monkeypatch.setattr(every_input, "draw", lambda found, path: None)
    one = {"minilm-l3": found["minilm-l3"]}
    every_input.publish(one, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["every_input.md"]
    monkeypatch.setattr(every_input, "RESULTS", tmp_path.resolve())
    every_input.publish(one, tmp_path)
    assert list(json.loads((tmp_path / "stored.json").read_text())) == [found["minilm-l3"]["weights"]]
