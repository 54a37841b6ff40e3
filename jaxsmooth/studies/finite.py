"""A model that leaves the finite numbers is refused, by the name of the first array in which it does.

The study's own program carries one truth value per layer and sentence; only where one is False is the batch run again,
to find the array.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..bert.encoder import encode
from ..bert.params import Encoder
from ..errors import DivergedError
from ..inputs.batching import EncodedBatch
from ..types import Batch, BlockTrace, Edits, ImageBatch, named_leaves

POST_NORM_ORDER = (
    *("input", "query", "key", "value", "attn_logits", "attn", "context", "mixed", "pre_attn", "std_attn"),
    *("normed", "mlp", "pre_mlp", "std_mlp", "hidden"),
)
PRE_NORM_ORDER = (
    *("input", "std_attn", "query", "key", "value", "attn_logits", "attn", "context", "mixed", "pre_attn"),
    *("std_mlp", "normed", "mlp", "pre_mlp", "hidden"),
)
"""The arrays of a block in order of computation."""


def finite_rows(trace: BlockTrace, mask: Bool[Array, "B T"]) -> Bool[Array, " B"]:
    """Whether a block's numbers are finite on the real tokens of each sentence, for use in a `collect`.

    Looks at the four arrays into which whatever is not finite in a block finds its way, and which a study reads anyway.
    """
    wrong = [_wrong(getattr(trace, site), mask) for site in ("hidden", "attn", "std_attn", "std_mlp")]
    return ~jnp.any(jnp.stack(wrong), axis=0)


def refuse_diverged(
    model: Encoder, encoded: EncodedBatch, measured: dict[str, Any], edits: Callable[[], Edits] = Edits, what: str = ""
) -> None:
    """Nothing, where all of a batch's numbers are finite.

    Args:
      model: the encoder.
      encoded: the batch.
      measured: what the study measured; `finite_rows` of every layer, [L B], is taken out of it, where it is there.
      edits: gives those of the run.
      what: names them, for the message.

    Raises:
      DivergedError: names the first layer and array that is not finite, and a sentence.
    """
    diverged = ~np.asarray(measured.pop("finite", np.ones((1, 1), bool)))[:, : len(encoded.indices)].all(axis=1)
    if diverged.any():
        _refuse(model, encoded, edits(), f"with {what}, " if what else "", int(np.argmax(diverged)))


def refuse_parameters(model: Encoder) -> None:
    """Nothing, where all parameters are finite.

    Raises:
      DivergedError: names the first that is not, and its layer.
    """
    for name, leaf in named_leaves(model).items():
        wrong = ~np.asarray(jnp.isfinite(leaf))
        if wrong.any():
            of = f" of layer {np.nonzero(wrong)[0][0] + 1}" if name.startswith("blocks.") else ""
            raise DivergedError(f"parameter {name}{of} is not finite. Did the training diverge?")


def _refuse(model: Encoder, encoded: EncodedBatch, edits: Edits, prefix: str, last: int) -> NoReturn:
    """`last`: by this layer the numbers are not finite."""
    wrong = {site: np.asarray(rows) for site, rows in _not_finite(model, encoded.batch, edits).items()}
    order = POST_NORM_ORDER if model.config.placement == "post" else PRE_NORM_ORDER
    places = ((layer, site) for layer in range(last + 1) for site in order if wrong[site][layer].any())
    layer, site = next(places, (last, "hidden"))
    sentence = int(encoded.indices[np.argmax(wrong[site][layer])]) + 1
    where = "the embedding" if site == "input" else f"layer {layer + 1}, {site}"
    dtype = jax.tree.leaves(model)[0].dtype
    raise DivergedError(
        f"{prefix}{where} is not finite for sentence {sentence}; what is computed before it is. {_cause(model, layer)}"
        f"The largest number of {dtype} is {float(jnp.finfo(dtype).max):.3g}. Did the weights diverge in training, or "
        "need a wider dtype?"
    )


def _cause(model: Encoder, layer: int) -> str:
    """The layer's parameters that are not finite themselves."""
    stored = 0 if model.config.shared_layers else layer
    read = ("embeddings.", "blocks.") if layer == 0 else ("blocks.",)
    named = {name: leaf for name, leaf in named_leaves(model).items() if name.startswith(read)}
    own = {name: leaf[stored] if name.startswith("blocks.") else leaf for name, leaf in named.items()}
    wrong = [name for name, leaf in own.items() if not jnp.isfinite(leaf).all()]
    return f"Its parameter {wrong[0]} is not finite either. " if wrong else ""


@jax.jit
def _not_finite(model: Encoder, batch: Batch | ImageBatch, edits: Edits) -> dict[str, Array]:
    """Name of each array of a block -> which sentences have something that is not finite in it, [L B]."""

    def collect(trace: BlockTrace) -> dict[str, Array]:
        return {site: _wrong(getattr(trace, site), batch.mask, site) for site in POST_NORM_ORDER}

    with jax.default_matmul_precision("highest"):
        return encode(model, batch, edits=edits, collect=collect)[1]


def _wrong(value: Array, mask: Array, site: str = "") -> Array:
    """Of [B T ...] or [B N T ...]: whether a real token has something that is not finite, [B]."""
    wrong = ~jnp.isfinite(value)
    if site == "attn_logits":  # an edit may hide keys by -inf, and padded keys are hidden anyway
        wrong &= (value != -jnp.inf) & mask[:, None, None, :]
    real = mask[:, :, None] if value.ndim == 3 else mask[:, None, :, None]
    return jnp.any(wrong & real, axis=tuple(range(1, value.ndim)))
