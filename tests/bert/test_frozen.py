"""The encoder against numbers that torch transformers computed in float64 (made by make_frozen.py)."""

import hashlib
import json

import numpy as np
import pytest
from support import reference
from support.make_frozen import FROZEN, RANDOM, compress
from support.parity import PRECISIONS, TOLERANCE, frozen_model, minilm_directory, run_ours, worst_error

import jaxsmooth

QUANTITIES = ("embedded", "hidden", "attn", "std_attn", "std_mlp")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", RANDOM)
def test_random_models_match_torch(name, dtype):
    _, _, expected = frozen_model(name)
    ours = run_ours(FROZEN / name, dtype, expected)
    errors = {key: worst_error(ours[key], expected[key], key, expected["mask"]) for key in QUANTITIES}
    assert max(errors.values()) <= TOLERANCE[dtype], errors


@pytest.mark.parametrize("name", RANDOM)
def test_the_reference_implementation_matches_torch(name):
    tensors, config, expected = frozen_model(name)
    for b, n in enumerate(expected["mask"].sum(axis=1)):
        run = reference.forward(tensors, config, expected["tokens"][b, :n], expected["segments"][b, :n])
        pairs = {
            "embedded": (run.hidden[0], expected["embedded"][b, :n]),
            "hidden": (run.hidden[1:], expected["hidden"][:, b, :n]),
            "attn": (run.attn, expected["attn"][:, b, :, :n, :n]),
            "std_attn": (run.std_attn, expected["std_attn"][:, b, :n, 0]),
            "std_mlp": (run.std_mlp, expected["std_mlp"][:, b, :n, 0]),
        }
        for key, (mine, theirs) in pairs.items():
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12, err_msg=key)


def frozen_minilm() -> tuple[dict, dict]:
    with np.load(FROZEN / "minilm-l6.npz") as stored:
        expected = dict(stored)
    return json.loads((FROZEN / "minilm-l6.json").read_text(encoding="utf-8")), expected


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_minilm_matches_torch(dtype):
    directory = minilm_directory()
    about, expected = frozen_minilm()
    assert hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest() == about["sha256"]
    ours = compress(run_ours(directory, dtype, expected))
    errors = {key: worst_error(ours[key], expected[key], key, expected["mask"]) for key in QUANTITIES}
    assert max(errors.values()) <= TOLERANCE[dtype], errors


def test_minilm_tokenizer_gives_the_ids_of_transformers():
    about, expected = frozen_minilm()
    _, tokenizer = jaxsmooth.load(minilm_directory())
    batch = tokenizer(about["texts"])
    for b, n in enumerate(expected["mask"].sum(axis=1)):
        assert int(batch.mask[b].sum()) == n
        np.testing.assert_array_equal(batch.tokens[b, :n], expected["tokens"][b, :n])
        np.testing.assert_array_equal(batch.segments[b, :n], expected["segments"][b, :n])
