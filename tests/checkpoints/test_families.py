"""Every family against numbers that torch transformers computed in float64 (made by make_families.py)."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.checkpoint import assert_same_bits
from support.make_families import FROZEN, LIVE_ONLY, MODELS
from support.parity import TOLERANCE, run_ours, worst_error

import jaxsmooth
from jaxsmooth.checkpoints.config_json import WRITTEN_ANEW, config_from_dict
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.tensors import WEIGHTS

FROZEN_MODELS = [name for name in MODELS if name not in LIVE_ONLY]
QUANTITIES = ("embedded", "hidden", "attn", "std_attn", "std_mlp", "last")


def test_no_family_is_forgotten():
    assert {family for family, _ in MODELS.values()} == set(FAMILIES)


# In float32 what differs from BERT in kind; the rest only with `make parity`.
CASES = [(name, "float64") for name in FROZEN_MODELS]
CASES += [(name, "float32") for name in ("roberta", "modernbert", "vit", "gpt2")]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_hidden_states_and_attention_match_torch(name, dtype):
    with np.load(FROZEN / name / "expected.npz") as stored:
        expected = dict(stored)
    ours = run_ours(FROZEN / name, dtype, expected)
    errors = {key: worst_error(ours[key], expected[key], key, expected["mask"]) for key in QUANTITIES}
    assert max(errors.values()) <= TOLERANCE[dtype], errors


@pytest.mark.compatibility("saving", "a config.json of any family, saved again", "the same keys and values", was=1)
@pytest.mark.compatibility("saving", "pad_token_id null, n_inner null (GPT-2)", "null again, not 0", was=1)
@pytest.mark.parametrize("name", FROZEN_MODELS)
def test_a_directory_of_transformers_is_saved_again_bit_for_bit(name, tmp_path):
    model, tokenizer = jaxsmooth.load(FROZEN / name)
    assert tokenizer is None
    jaxsmooth.save(model, tmp_path)
    ours, theirs = load_file(tmp_path / WEIGHTS), load_file(FROZEN / name / WEIGHTS)
    assert set(ours) == set(theirs)
    for key, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[key].dtype, theirs[key].shape)
        assert tensor.tobytes() == theirs[key].tobytes(), key
    assert_same_bits(jaxsmooth.load(tmp_path, dtype=jnp.float32)[0], model)
    written = json.loads((FROZEN / name / "config.json").read_text())
    again = json.loads((tmp_path / "config.json").read_text())
    kept = {key: value for key, value in written.items() if key not in WRITTEN_ANEW}
    assert len(kept) >= 15
    # As text: a number keeps its type.
    assert json.dumps({key: again[key] for key in kept}, sort_keys=True) == json.dumps(kept, sort_keys=True)
    assert again["architectures"] == written["architectures"]
    assert "jaxsmooth" not in again
    assert config_from_dict(again) == model.config
