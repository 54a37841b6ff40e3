"""The one sentence that a report shows token by token."""

from collections.abc import Iterable, Iterator

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
from ..results.diagnosis import Exemplar
from ..types import Batch

EXEMPLAR_TOKENS = 24  # the longest sentence that a token-by-token picture shows legibly


class _Chooser:
    """The longest sentence of at most EXEMPLAR_TOKENS tokens, the first in the alphabet among equals."""

    def __init__(self) -> None:
        self.best: tuple[int, str] | None = None
        self.tokens: NDArray | None = None

    def offer(self, encoded: EncodedBatch, lengths: NDArray, texts: dict[int, str]) -> None:
        if not isinstance(encoded.batch, Batch):  # an image has no tokens to spell out
            return
        for row, (index, length) in enumerate(zip(encoded.indices.tolist(), lengths.tolist(), strict=True)):
            text = texts.pop(index)
            rank = (-length, text)
            if length <= EXEMPLAR_TOKENS and (self.best is None or rank < self.best):
                self.best, self.tokens = rank, np.asarray(encoded.batch.tokens[row, :length])

    def exemplar(self, model: Encoder, tokenizer: Tokenizer | None) -> Exemplar | None:
        if self.best is None or self.tokens is None or tokenizer is None:
            return None
        text, length = self.best[1], -self.best[0]
        tokens = np.full((1, EXEMPLAR_TOKENS), model.config.pad_token, np.int32)
        tokens[0, :length] = self.tokens
        tokens = tokens[:, : model.config.max_length]
        mask = np.arange(tokens.shape[1])[None] < length
        batch = Batch(tokens=jnp.asarray(tokens), segments=jnp.zeros_like(tokens), mask=jnp.asarray(mask))
        cosine, attn = _token_maps(model, batch)
        return Exemplar(
            text=text,
            tokens=tuple(tokenizer.strings(self.tokens)),
            cosine=np.asarray(cosine[:, 0, :length, :length], np.float32),
            attn=np.asarray(attn[:, 0, :, :length, :length], np.float32),
        )


@jax.jit
def _token_maps(model: Encoder, batch: Batch) -> tuple[Array, Array]:
    _, trace = encode(model, batch, collect=keep_trace)
    hidden = jnp.concatenate([embed(model, batch)[None], trace.hidden])
    return metrics.cosine_matrix(hidden, jnp.broadcast_to(batch.mask[None], hidden.shape[:-1])), trace.attn


def _remember(texts: Iterable[str], seen: dict[int, str]) -> Iterator[str]:
    """The same texts; `seen` holds those on their way through a batch, for whoever takes them out again."""
    for index, text in enumerate(texts):
        seen[index] = text
        yield text
