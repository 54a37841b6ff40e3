"""The real weight assets against torch transformers, live: `make parity` (needs the `parity` extra and the assets)."""

from collections.abc import Iterator

import numpy as np
import pytest
from support.assets import REAL, REAL_CACHE
from support.parity import PRECISIONS, TOLERANCE, run_ours, worst_error

import jaxsmooth
from jaxsmooth.assets import asset_path
from jaxsmooth.checkpoints.formats import open_weights

pytestmark = pytest.mark.parity
QUANTITIES = ("embedded", "hidden", "attn")
SENTENCES = ["A film worth seeing.", "The lighthouse keeper counted seven ships before breakfast.", "Dull."]
# The package's own examples (antiberty 0.1.3, README), cut.
RESIDUES = ["EVQLVQSGPEVKKPGTSVKVSCKASGFTFMSSAVQWVRQA", "DVVMTQTPFSLPVSLGDQAS", "DVV"]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines = [f"{'worst error':<28}{'precision':<10}" + "".join(f"{name:>12}" for name in QUANTITIES)]
    yield lines
    print("\n" + "\n".join(lines))


def torch_model(name: str, dtype: str):
    """transformers' own model, from the asset's original file where it can read it, else from our arrays."""
    import torch
    import transformers

    folder = asset_path(name)
    if name == "mpnet-base":
        model = transformers.MPNetModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
        return model.to(getattr(torch, dtype)).eval()
    config = transformers.BertConfig.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"
    model = transformers.BertModel(config, add_pooling_layer=False)
    if name == "antiberty":
        state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    else:
        state = {stored.name: torch.from_numpy(np.array(stored.read())) for stored in open_weights(folder).tensors}
    state = {key.removeprefix("bert."): value for key, value in state.items()}
    left = model.load_state_dict({key: state[key] for key in state if key in model.state_dict()}, strict=False)
    assert not [key for key in left.missing_keys if "position_ids" not in key]
    return model.to(getattr(torch, dtype)).eval()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["antiberty", "minilm-l3", "mpnet-base"])
def test_a_real_model_runs_as_in_torch(name, dtype, table, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'jaxsmooth[parity]'")
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'jaxsmooth[parity]'")
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
    if not REAL[name]:
        pytest.skip(f"needs {name}: jaxsmooth assets fetch {name}")
    _, tokenizer = jaxsmooth.load(name)
    fed = tokenizer(RESIDUES if name == "antiberty" else SENTENCES)
    batch = {key: np.array(getattr(fed, key)) for key in ("tokens", "segments", "mask")}
    assert not batch["mask"].all()
    ids = torch.from_numpy(batch["tokens"]).long()
    with torch.no_grad():
        mask = torch.from_numpy(batch["mask"]).long()
        out = torch_model(name, dtype)(ids, mask, output_hidden_states=True, output_attentions=True)
    theirs = {"embedded": out.hidden_states[0], "hidden": torch.stack(out.hidden_states[1:])}
    theirs = {key: value.numpy() for key, value in (theirs | {"attn": torch.stack(out.attentions)}).items()}
    ours = run_ours(asset_path(name), dtype, batch)
    errors = {key: worst_error(ours[key], theirs[key], key, batch["mask"]) for key in QUANTITIES}
    table.append(f"{name:<28}{dtype:<10}" + "".join(f"{errors[key]:12.1e}" for key in QUANTITIES))
    assert max(errors.values()) <= TOLERANCE[dtype], errors
