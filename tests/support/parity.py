"""What the parity tests share: the two precisions, the frozen models, and our side of the comparison."""

import contextlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxsmooth
from jaxsmooth.bert.heads import apply_head
from support.make_frozen import FROZEN

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
PRECISIONS = tuple(TOLERANCE)
LETTERS = "abcdefghijklmnopqrst"
# A WordPiece vocabulary that fits the frozen models' 48 tokens: letters that open or continue a word.
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]


def precision(name: str) -> contextlib.AbstractContextManager:
    """Allow 64-bit arrays for float64; everything inside must carry its dtype."""
    return jax.enable_x64(name == "float64")


def frozen_model(name: str) -> tuple[dict, dict, dict]:
    """(tensors, config, expected) of one committed random model."""
    directory = FROZEN / name
    with np.load(directory / "expected.npz") as stored:
        expected = dict(stored)
    return load_file(directory / "model.safetensors"), json.loads((directory / "config.json").read_text()), expected


def minilm_directory() -> Path:
    """Where MiniLM's files lie; skips the test, visibly, when they are neither cached nor to be had."""
    from jaxsmooth.assets.fetch import fetch

    try:
        return Path(fetch("minilm-l6"))
    except jaxsmooth.errors.AssetError as error:
        pytest.skip(f"the asset minilm-l6 is not available: {error}")


def fed_batch(
    model: jaxsmooth.Encoder, dtype: str, batch: dict[str, np.ndarray]
) -> jaxsmooth.Batch | jaxsmooth.ImageBatch:
    """The batch as our encoder reads it."""
    if "pixels" in batch:
        return jaxsmooth.image_batch(model.config, jnp.asarray(batch["pixels"], dtype))
    return jaxsmooth.Batch(**{name: jnp.asarray(batch[name]) for name in ("tokens", "segments", "mask")})


def run_ours_with_head(directory: Path, dtype: str, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Our logits of a checkpoint with a head; all sentences are the choices of one question."""
    with precision(dtype):
        model, head, _ = jaxsmooth.load_with_head(directory, dtype=dtype)
        fed = fed_batch(model, dtype, batch)
        hidden, _ = jaxsmooth.encode(model, fed, collect=jaxsmooth.keep_nothing)
        logits = apply_head(head, model, hidden, fed.mask, choices=len(batch["mask"]))
        assert logits.dtype == dtype
        return np.asarray(logits)


def run_ours(directory: Path, dtype: str, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our embeddings, hidden states, attention, stds at the norms, and last hidden states after any final norm."""
    with precision(dtype):
        model, _ = jaxsmooth.load(directory, dtype=getattr(jnp, dtype))
        fed = fed_batch(model, dtype, batch)
        hidden, trace = jaxsmooth.encode(model, fed)
        values = {name: getattr(trace, name) for name in ("hidden", "attn", "std_attn", "std_mlp")}
        values |= {"embedded": jaxsmooth.embed(model, fed), "last": hidden}
        assert {str(value.dtype) for value in values.values()} == {dtype}
        assert model.final_norm is not None or np.array_equal(hidden, values["hidden"][-1])
        return {name: np.asarray(value) for name, value in values.items()}


def worst_error(ours: np.ndarray, theirs: np.ndarray, name: str, mask: np.ndarray) -> float:
    """Largest absolute difference over real tokens; `name` says where the token axis is.

    Of a std above 1 the relative one: minilm-l6 has stds of 11, where torch's own float32 is 5e-6 from its float64.
    """
    assert ours.shape == theirs.shape
    error = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    if name.startswith("std"):
        error = error / np.maximum(1, np.abs(theirs))
    if name == "attn":
        error = np.moveaxis(error, 2, -1)  # L B T S N: a row of attention belongs to its query
    return float(error[mask].max() if name in ("embedded", "last") else error[:, mask].max())
