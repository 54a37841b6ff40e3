"""The example of the README runs as it stands, and the files it points to are there."""

import re

import jax
import numpy as np
import pytest
from support import ROOT

import jaxsmooth

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    try:
        jaxsmooth.load("minilm-l6")
    except jaxsmooth.errors.AssetError as error:
        pytest.skip(f"the asset minilm-l6 is not available: {error}")
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(compile(example, "README.md", "exec"), {})
    similarity, _, bound = capsys.readouterr().out.strip().partition("\n")
    numbers = [float(word) for word in re.findall(r"[-\d.e+]+", similarity + " " + bound)]
    # A cosine for each of two sentences; an actual rate and L1 for each of six layers.
    assert len(numbers) == 2 + 6 + 6
    assert np.isfinite(numbers).all()
    assert all(actual < rung for actual, rung in zip(numbers[2:8], numbers[8:], strict=True))


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/images/overview.png" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
