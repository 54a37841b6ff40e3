"""The example of the README runs as it stands, and the files it points to are there."""

import re
from pathlib import Path

import jax
import pytest

import jaxsmooth

ROOT = Path(__file__).parent.parent
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
    assert similarity.startswith("[")
    assert bound.startswith("[")


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/images/overview.png" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
