"""The paper's v and the ladder of bounds at every block of a run, with or without edits (std.py, criticisms.py)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from numpy.typing import NDArray

from jaxsmooth import Batch, BlockTrace, Edits, Encoder, Tokenizer, encode, metrics
from jaxsmooth.studies.measurements import model_norms
from jaxsmooth.theory.block import ladder
from jaxsmooth.theory.block.traced_block import TracedBlock
from jaxsmooth.theory.theorems import RUNGS
from jaxsmooth.theory.theorems.parameters import BlockNorms

from . import observed

BOUNDS = ("L4", "L3", "L2b", "L2", "L1", "L0")


@functools.partial(jax.jit, static_argnames="rungs")
def bounds_of(
    model: Encoder, norms: BlockNorms, batch: Batch, edits: Edits, rungs: tuple[str, ...]
) -> dict[str, Array]:
    """Actual rate, v and bounds of a batch, [L B]; cosine and d_M/‖H‖ of what every block hands out, [L B]."""
    mask = batch.mask

    def collect(trace: BlockTrace) -> dict[str, Array]:
        own = jax.tree.map(lambda stacked: stacked[trace.layer], norms)
        mixing = metrics.mixing_rate(trace.attn, mask)
        state = ladder.BlockState(trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, mask, mixing)
        q = TracedBlock(own, state, trace.block)
        return {
            **{rung: text(q).value(q) for rung, text in RUNGS.items() if rung in rungs and rung != "L0"},
            "actual": ladder.actual_rate(trace.input, trace.hidden, mask),
            "mixing": mixing,
            "std_product": ladder.std_product(state),
            "cosine": metrics.token_cosine_similarity(trace.hidden, mask),
            "distance": metrics.relative_distance(trace.hidden, mask),
        }

    found = encode(model, batch, edits=edits, collect=collect)[1]
    found["L0"] = ladder.shi2022_rate(norms, model.config.activation, found["mixing"], found["std_product"])
    largest = jnp.max(found["mixing"], axis=(0, 2))
    s = jnp.maximum(jnp.max(norms.heads), jnp.maximum(jnp.max(norms.up), jnp.max(norms.down)))
    heads = jnp.asarray(model.config.heads, s.dtype)
    # As printed: ReLU's slope, no gains.
    found["v"] = (1 + s * s) * (1 + largest * heads * s)[None] / found["std_product"]
    del found["mixing"]
    return found


def bounds(
    model: Encoder,
    tokenizer: Tokenizer,
    texts: list[str],
    edits: Callable[[Batch], Edits],
    rungs: tuple[str, ...] = BOUNDS,
) -> dict[str, NDArray]:
    """`bounds_of`, text by text, [L texts].

    Args:
      model: the encoder.
      tokenizer: its tokenizer.
      texts: sentences.
      edits: of every batch the edits to run it with.
      rungs: which of `BOUNDS` to compute besides L0; L3 is the dear one.
    """
    norms = model_norms(model)
    return observed.by_text(tokenizer, texts, lambda batch: bounds_of(model, norms, batch, edits(batch), rungs), 512)
