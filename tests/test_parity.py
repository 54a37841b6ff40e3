"""The encoder against torch transformers, live: `make parity` (needs the `parity` extra).

JAXSMOOTH_PARITY_TABLE names a file for the table of worst errors; it is printed in any case (`pytest -s`).

`hidden` are the raw outputs of all blocks, the final norm left out, caught by hooks in torch; `last` has passed it.
The other families' batches are compared with their padding and once more without, sentence by sentence.
Where transformers computes in float32 whatever the dtype (softmax of ViT, DeiT and ModernBERT, rotary angles), its
float64 rows are of transformers with those casts taken out.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import make_families
import numpy as np
import pytest
from helpers_parity import PRECISIONS, TOLERANCE, minilm_directory, run_ours, worst_error
from make_frozen import FROZEN, RANDOM, load_torch, random_batch, run_torch, tokenise

pytestmark = pytest.mark.parity
QUANTITIES = ("embedded", "hidden", "attn", "std_attn", "std_mlp", "last")


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
    theirs["last"] = theirs["hidden"][-1]
    errors = worst_errors(run_ours(directory, dtype, batch), theirs, batch["mask"])
    record(name, dtype, errors, table)


def worst_errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    return {key: worst_error(ours[key], theirs[key], key, mask) for key in QUANTITIES}


def record(name: str, dtype: str, errors: dict[str, float], table: list[str]) -> None:
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


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", make_families.MODELS)
def test_families_with_padding_and_without(name, dtype, table, tmp_path):
    import torch

    model = make_families.write(name, tmp_path).to(getattr(torch, dtype))
    padded = make_families.random_batch(name)
    # Every sentence alone, without padding; images have none.
    alone = [] if "pixels" in padded else [cut(padded, row) for row in range(len(padded["mask"]))]
    found = []
    for batch in (padded, *alone):
        theirs = make_families.run_torch(name, model, batch)
        found.append(worst_errors(run_ours(tmp_path, dtype, batch), theirs, batch["mask"]))
    record(name, dtype, {key: max(errors[key] for errors in found) for key in QUANTITIES}, table)


def cut(batch: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    length = int(batch["mask"][row].sum())
    return {key: values[row : row + 1, :length] for key, values in batch.items()}
