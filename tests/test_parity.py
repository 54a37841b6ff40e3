"""The encoder against torch transformers, live: `make parity` (needs the `parity` extra).

JAXSMOOTH_PARITY_TABLE names a file for the table of worst errors; it is printed in any case (`pytest -s`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers_parity import PRECISIONS, TOLERANCE, minilm_directory, run_ours, worst_error
from make_frozen import FROZEN, RANDOM, load_torch, random_batch, run_torch, tokenise

pytestmark = pytest.mark.parity
QUANTITIES = ("embedded", "hidden", "attn", "std_attn", "std_mlp")


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'jaxsmooth[parity]'")
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'jaxsmooth[parity]'")


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    header = "".join(f"{name:>12}" for name in QUANTITIES)
    lines = [f"{'worst error':<28}{'precision':<10}{header}"]
    yield lines
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    if path := os.environ.get("JAXSMOOTH_PARITY_TABLE"):
        aside = Path(path + ".part")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)


def compare(name: str, dtype: str, directory: Path, batch: dict[str, np.ndarray], table: list[str]) -> None:
    theirs = run_torch(load_torch(directory, dtype), batch)
    ours = run_ours(directory, dtype, batch)
    errors = {key: worst_error(ours[key], theirs[key], key, batch["mask"]) for key in QUANTITIES}
    table.append(f"{name:<28}{dtype:<10}" + "".join(f"{errors[key]:12.1e}" for key in QUANTITIES))
    assert max(errors.values()) <= TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", RANDOM)
def test_random_configurations(name, dtype, table):
    compare(name, dtype, FROZEN / name, random_batch(name), table)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_minilm_on_a_padded_batch_of_reviews(dtype, table):
    from jaxsmooth.assets.texts import read_texts

    directory = minilm_directory()
    batch = tokenise(directory, read_texts("movie-reviews", 12))
    assert not batch["mask"].all()
    compare("minilm-l6, 12 reviews", dtype, directory, batch, table)
