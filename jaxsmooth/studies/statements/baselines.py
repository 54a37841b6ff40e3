"""What similarity is compared with: tokens of different texts, and the same architecture before training."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array
from numpy.typing import NDArray

from ...bert.config import EncoderConfig
from ...bert.encoder import embed, encode
from ...bert.params import Encoder, blank_encoder, init_encoder
from ...heap import release_freed
from ...inputs.batching import EncodedBatch
from ...programs import kept
from ...results.diagnosis import Untrained
from ...types import Batch, BlockTrace, ImageBatch
from ..hidden_states import measure_states

NAMES = ("cosine_similarity", "relative_distance")
SEED = 1
"""Of the draw; not 0, from which the model "tiny" is drawn."""


class Anisotropy:
    """The mean cosine of two tokens of different texts, in every hidden state, from running sums.

    With u_a the mean of the directions of text a's tokens, u_a . u_b is the mean cosine of a token of a with one of b.
    Over all pairs of n texts the mean is (|sum u|^2 - sum |u|^2) / (n (n - 1)), so no text is kept.

    >>> seen = Anisotropy()
    >>> seen.add(np.array([[1.0, 0.6], [0.0, 0.8]]))  # one hidden state of two features, two texts
    >>> seen.found(1)
    array([0.6])
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0

    def add(self, directions: NDArray[np.floating]) -> None:
        """Add a batch: the u of every text, hidden states one below the other, [KD B]."""
        wide = np.asarray(directions, np.float64)
        self._count += wide.shape[1]
        self._sum = self._sum + wide.sum(axis=1)
        self._squares = self._squares + (wide**2).sum(axis=1)

    def found(self, states: int) -> NDArray[np.float64]:
        """The mean cosine in each of K hidden states, [K]; NaN of fewer than two texts."""
        if self._count < 2:
            return np.full(states, np.nan)
        both, own = (np.reshape(part, (states, -1)).sum(axis=1) for part in (np.square(self._sum), self._squares))
        return (both - own) / (self._count * (self._count - 1))


class Baselines:
    """Both, gathered while the texts go by.

    Args:
      model: the encoder, as the batches are placed.
      twin: whether the untrained model is wanted.
      programs: folder of traced programs.
    """

    def __init__(self, model: Encoder, *, twin: bool, programs: Path | None = None) -> None:
        self._model, self._twin, self._across, self._programs = model, twin, Anisotropy(), programs
        self._first: tuple[Batch | ImageBatch, int] | None = None
        self._untrained: Untrained | None = None

    def see(self, encoded: EncodedBatch) -> None:
        """Keep the first batch for the untrained model; later ones are passed over."""
        if self._twin and self._first is None:
            # Where the batch is cut over devices and the model is not: one small batch, so on the model's.
            self._first = jax.tree.map(np.asarray, encoded.batch), len(encoded.indices)

    def measure(self) -> None:
        """Measure the untrained model on the first batch."""
        if self._first is None:
            return
        batch, texts = self._first
        release_freed()  # the programs of the batches are loaded, those of this come on top
        batch, config = own_words(batch, self._model.config)
        measured = kept(_similarity, self._programs)(untrained(self._model, config, self._programs), batch)
        cosine, relative = (_mean(np.asarray(measured[key], np.float64)[:, :texts]) for key in NAMES)
        self._untrained = Untrained(texts=texts, seed=SEED, cosine_similarity=cosine, relative_distance=relative)

    def add(self, directions: Any, texts: int) -> None:
        """Add a batch of the model's own: as `Anisotropy.add`, the first `texts` columns."""
        self._across.add(np.asarray(directions)[:, :texts])

    def found(self, states: int) -> dict[str, Any]:
        """The fields of a `Diagnosis` with this many hidden states."""
        return {"anisotropy": self._across.found(states), "untrained": self._untrained}


def own_words(batch: Batch | ImageBatch, config: EncoderConfig) -> tuple[Batch | ImageBatch, EncoderConfig]:
    """A batch with its words numbered anew, and the architecture with a word table of rows for them alone.

    Before training one row differs from another but by chance, so that is no other model; and it is a small part of one
    whose words are most of its parameters. How many rows depends on the batch's shape, as its program does. Numbers up
    to that of the padding, which has a meaning, stay.

    >>> batch = Batch(tokens=np.array([[101, 2054, 102], [101, 102, 0]]), mask=np.array([[1, 1, 1], [1, 1, 0]], bool))
    >>> found, config = own_words(batch, EncoderConfig())
    >>> found.tokens.tolist(), config.vocab
    ([[1, 3, 2], [1, 2, 0]], 7)
    """
    if not isinstance(batch, Batch):
        return batch, config
    first = max(config.pad_token, config.position_offset - 1) + 1
    vocab = min(config.vocab, first + batch.tokens.size)
    words = np.unique(batch.tokens[batch.tokens >= first])
    own = np.where(batch.tokens < first, batch.tokens, first + np.searchsorted(words, batch.tokens))
    tokens = own.astype(batch.tokens.dtype)
    few = dataclasses.replace(config, vocab=vocab)
    return dataclasses.replace(batch, tokens=tokens), few  # type: ignore[arg-type]  # numpy, until put on a device


def untrained(model: Encoder, config: EncoderConfig, programs: Path | None = None) -> Encoder:
    """An encoder with weights drawn as before training, of a model's dtype and in its place.

    Args:
      model: the encoder.
      config: its architecture, of which only the number of words may be another.
      programs: folder of traced programs.

    >>> import jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> jax.tree.structure(untrained(model, model.config)) == jax.tree.structure(model)
    True
    """
    leaves = jax.tree.leaves(model)
    tree = jax.tree.structure(blank_encoder(config, model.pooler is not None))
    drawn = kept(_drawn, programs, config=config, pooler=model.pooler is not None)()
    placed = [jax.device_put(new.astype(old.dtype), _place(old, new)) for new, old in zip(drawn, leaves, strict=True)]
    return jax.tree.unflatten(tree, placed)


def _place(old: Any, new: Array) -> Any:
    """Where an array of the model lies; whole on each device in the place of one of another shape."""
    where = getattr(old, "sharding", None)
    if new.shape != old.shape and isinstance(where, NamedSharding):
        return NamedSharding(where.mesh, PartitionSpec())
    return where


@jax.jit
def _similarity(model: Encoder, batch: Batch | ImageBatch) -> dict[str, Array]:
    """The measures of `NAMES` of every hidden state, [L+1 B]: a program of its own, a small part of `measure_batch`."""
    with jax.default_matmul_precision("highest"):
        hidden = encode(model, batch, collect=_hidden)[1]
        states = jnp.concatenate([embed(model, batch)[None], hidden])
        wide = states if states.dtype == jnp.float64 else states.astype(jnp.float32)
        return measure_states(wide, batch.mask, NAMES)


def _hidden(trace: BlockTrace) -> Array:
    return trace.hidden


@functools.partial(jax.jit, static_argnames=("config", "pooler"))
def _drawn(config: EncoderConfig, pooler: bool) -> list[Array]:
    # In float32 whatever the dtype: in another one the generator gives other numbers, not rounded ones.
    return jax.tree.leaves(init_encoder(config, jax.random.key(SEED), dtype=jnp.float32, pooler=pooler))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the texts that have a value, [K B] -> [K]."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
