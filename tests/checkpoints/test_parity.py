"""The encoder against torch transformers, live: `make parity` (needs the `parity` extra).

JAXSMOOTH_PARITY_TABLE names a file for the table of worst errors, JAXSMOOTH_HEADS_TABLE for that of the heads; each is
printed in any case (`pytest -s`).

`hidden` are the raw outputs of all blocks, the final norm left out, caught by hooks in torch; `last` has passed it.
The other families' batches are compared with their padding and once more without, sentence by sentence.
Errors are absolute. MiniLM's LayerNorm stds reach 11; torch's own float32 ones are there up to 9.6e-6 from its float64
ones on the 256 reviews.
Where transformers computes in float32 whatever the dtype (softmax of ViT, DeiT and ModernBERT, rotary angles), its
float64 rows are of transformers with those casts taken out.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import make_families
from support.make_frozen import FROZEN, RANDOM, load_torch, random_batch, run_torch, tokenise
from support.parity import PRECISIONS, TOLERANCE, minilm_directory, precision, run_ours, run_ours_with_head, worst_error

import jaxsmooth

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
    write_table(lines, "JAXSMOOTH_PARITY_TABLE")


def write_table(lines: list[str], variable: str) -> None:
    """Prints the table, and writes it to the file that an environment variable names."""
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    if path := os.environ.get(variable):
        aside = Path(path + ".part")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)


def errors_of_one_batch(dtype: str, directory: Path, model: Any, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Of ours, loaded from a directory, against a torch model."""
    theirs = run_torch(model, batch)
    theirs["last"] = theirs["hidden"][-1]
    return worst_errors(run_ours(directory, dtype, batch), theirs, batch["mask"])


def worst_errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    return {key: worst_error(ours[key], theirs[key], key, mask) for key in QUANTITIES}


def record(name: str, dtype: str, errors: dict[str, float], table: list[str]) -> None:
    table.append(f"{name:<28}{dtype:<10}" + "".join(f"{errors[key]:12.1e}" for key in QUANTITIES))
    assert max(errors.values()) <= TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", RANDOM)
def test_random_configurations(name, dtype, table):
    model = load_torch(FROZEN / name, dtype)
    record(name, dtype, errors_of_one_batch(dtype, FROZEN / name, model, random_batch(name)), table)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("count", [12, 256])
def test_minilm_on_padded_batches_of_reviews(count, dtype, table):
    from jaxsmooth.assets.texts import read_texts

    directory = minilm_directory()
    texts, found = list(read_texts("movie-reviews", count)), []
    model = load_torch(directory, dtype)
    for start in range(0, count, 64):
        batch = tokenise(directory, texts[start : start + 64])
        assert not batch["mask"].all()
        found.append(errors_of_one_batch(dtype, directory, model, batch))
    record(
        f"minilm-l6, {count} reviews", dtype, {key: max(errors[key] for errors in found) for key in QUANTITIES}, table
    )


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


@pytest.mark.parametrize("name", make_families.MODELS)
def test_transformers_reads_what_save_writes(name, tmp_path):
    import torch
    import transformers

    theirs = make_families.write(name, tmp_path / "theirs")
    with precision("float32"):
        jaxsmooth.save(jaxsmooth.load(tmp_path / "theirs")[0], tmp_path / "ours")
    again, report = transformers.AutoModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(theirs)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    changed = {key for key, value in theirs.config.to_dict().items() if again.config.to_dict()[key] != value}
    # Special tokens are the tokenizer's, and ours says outright what theirs leaves to a rule (n_inner).
    changed = {key for key in changed if not key.endswith("_token_id")}
    # The tanh form of GELU has two names.
    assert changed <= {"_name_or_path", "dtype", "n_inner", "architectures", "hidden_act"}, changed


def cut(batch: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    length = int(batch["mask"][row].sum())
    return {key: values[row : row + 1, :length] for key, values in batch.items()}


HEADED = tuple(name for name in make_families.MODELS if name not in make_families.UNHEADED)


@pytest.fixture(scope="module")
def heads_table() -> Iterator[list[str]]:
    lines = [f"{'worst error of the logits':<52}{'float32':>12}{'float64':>12}"]
    yield lines
    write_table(lines, "JAXSMOOTH_HEADS_TABLE")


@pytest.mark.parametrize(("name", "head"), [(name, head) for name in HEADED for head in make_families.heads_of(name)])
def test_logits_of_checkpoints_with_a_head(name, head, heads_table, tmp_path):
    import torch

    model = make_families.write(name, tmp_path, head)
    batch = make_families.random_batch(name)
    errors = {}
    for dtype in PRECISIONS:
        theirs = make_families.run_head(name, head, model.to(getattr(torch, dtype)), batch)
        ours = run_ours_with_head(tmp_path, dtype, batch)
        assert ours.shape == theirs.shape
        error = np.abs(ours - theirs)
        errors[dtype] = float(error[batch["mask"]].max() if ours.ndim == 3 else error.max())
    heads_table.append(f"{name + ' ' + head:<52}" + "".join(f"{errors[dtype]:12.1e}" for dtype in PRECISIONS))
    assert all(errors[dtype] <= TOLERANCE[dtype] for dtype in PRECISIONS), errors


@pytest.mark.parametrize(("name", "head"), [(name, head) for name in HEADED for head in make_families.heads_of(name)])
def test_transformers_reads_the_heads_that_we_save(name, head, tmp_path):
    import torch

    theirs = make_families.write(name, tmp_path / "theirs", head)
    with precision("float32"):
        model, own, _ = jaxsmooth.load_with_head(tmp_path / "theirs")
        jaxsmooth.save_with_head(model, own, tmp_path / "ours")
    again, report = type(theirs).from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["architectures"] == [type(theirs).__name__]
    assert again.config.num_labels == theirs.config.num_labels
    for key in make_families.HEAD_SETTINGS.get(name, {}):
        assert getattr(again.config, key) == getattr(theirs.config, key)


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "distilbert", "electra", "modernbert", "gpt2"])
def test_transformers_decodes_with_an_untied_head_that_we_save(name, tmp_path):
    """An own kernel and bias for the decoder, in both directions."""
    family, settings = make_families.MODELS[name]
    head = "LMHeadModel" if family == "gpt2" else "ForMaskedLM"
    untied = {**settings, "tie_word_embeddings": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(make_families.MODELS, name, (family, untied))
        theirs = make_families.write(name, tmp_path / "theirs", head)
        batch = make_families.random_batch(name)
    with precision("float32"):
        model, own, _ = jaxsmooth.load_with_head(tmp_path / "theirs")
        assert own.out.kernel is not None
        jaxsmooth.save_with_head(model, own, tmp_path / "ours")
    again, report = type(theirs).from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    expected = make_families.run_head(name, head, theirs.double(), batch)
    assert np.array_equal(make_families.run_head(name, head, again.double(), batch), expected)
    ours = run_ours_with_head(tmp_path / "ours", "float64", batch)
    assert np.abs(ours - expected)[batch["mask"]].max() <= TOLERANCE["float64"]


@pytest.mark.parametrize("name", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_decoder_sees_what_transformers_lets_it_see(name, dtype, tmp_path):
    import torch

    family, settings = make_families.MODELS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(make_families.MODELS, name, (family, {**settings, "is_decoder": True}))
        model = make_families.write(name, tmp_path).to(getattr(torch, dtype))
        batch = make_families.random_batch(name)
        theirs = make_families.run_torch(name, model, batch)
    errors = worst_errors(run_ours(tmp_path, dtype, batch), theirs, batch["mask"])
    assert max(errors.values()) <= TOLERANCE[dtype], errors
