"""The one sentence that a report shows token by token."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from .. import metrics
from ..bert.encoder import embed, encode, keep_trace
from ..bert.params import Encoder
from ..inputs.batching import EncodedBatch
from ..inputs.tokenizer import Tokenizer
from ..programs import kept
from ..results.diagnosis import Exemplar
from ..types import Batch

EXEMPLAR_TOKENS = 24
"""Tokens of the longest sentence that a token-by-token picture shows legibly."""


class ExemplarChooser:
    """Picks the longest sentence of at most `EXEMPLAR_TOKENS` tokens, the first in the alphabet among equals."""

    def __init__(self) -> None:
        self._best: tuple[int, str] | None = None
        self._tokens: NDArray = np.empty(0, np.int32)

    def offer(self, encoded: EncodedBatch) -> None:
        """Consider the sentences of a batch; an image has no tokens to show."""
        if not isinstance(encoded.batch, Batch):
            return
        lengths = np.asarray(encoded.batch.mask).sum(axis=1).tolist()
        for row, text in enumerate(encoded.texts):
            rank = (-lengths[row], text)
            if lengths[row] <= EXEMPLAR_TOKENS and (self._best is None or rank < self._best):
                self._best, self._tokens = rank, np.asarray(encoded.batch.tokens)[row, : lengths[row]]

    def exemplar(self, model: Encoder, tokenizer: Tokenizer | None, programs: Path | None = None) -> Exemplar | None:
        """The sentence with its token similarities and attention, or None if no sentence was short enough."""
        if self._best is None or tokenizer is None:
            return None
        text, length = self._best[1], len(self._tokens)
        # One shape, so that one program is compiled whatever the length.
        tokens = np.full((1, EXEMPLAR_TOKENS), model.config.pad_token, np.int32)
        tokens[0, :length] = self._tokens
        tokens = tokens[:, : model.config.max_length]
        mask = np.arange(tokens.shape[1])[None] < length
        batch = Batch(tokens=jnp.asarray(tokens), segments=jnp.zeros_like(tokens), mask=jnp.asarray(mask))
        cosine, attn = kept(_token_maps, programs)(model, batch)
        return Exemplar(
            text=text,
            tokens=tuple(tokenizer.strings(self._tokens)),
            cosine=np.asarray(cosine[:, 0, :length, :length], np.float32),
            attn=np.asarray(attn[:, 0, :, :length, :length], np.float32),
        )


@jax.jit
def _token_maps(model: Encoder, batch: Batch) -> tuple[Array, Array]:
    """Cosine similarities of all pairs of tokens, [L+1 B T T], and attention, [L B N T T]."""
    _, trace = encode(model, batch, collect=keep_trace)
    hidden = jnp.concatenate([embed(model, batch)[None], trace.hidden])
    return metrics.cosine_matrix(hidden, jnp.broadcast_to(batch.mask[None], hidden.shape[:-1])), trace.attn
