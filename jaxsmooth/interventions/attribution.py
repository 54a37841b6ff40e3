"""Which part of a block brings its tokens together: attention, MLP, or a norm.

The residual stream of a post-LN block passes four steps, X -> U = X + attention -> Y = LN(U) -> Z = Y + MLP(Y) -> H =
LN(Z). The change of a measure over the block is the sum of its changes over the steps, exactly; so is the change over
the whole encoder. In a pre-LN block the norms are not on the stream, and their own steps are zero.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..bert.checks import check_edits
from ..bert.config import EncoderConfig
from ..bert.encoder import encode
from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked
from ..theory.consensus import relative_distance, subspace_distance
from ..types import Batch, BlockTrace, Edits, ImageBatch

PARTS = ("attention", "norm_attn", "mlp", "norm_mlp")
"""The steps of a block along the residual stream, in order."""

Measure = Literal["log_relative_distance", "relative_distance", "log_subspace_distance"]

MEASURES: dict[str, Callable[[Array, Array], Array]] = {
    "log_relative_distance": lambda hidden, mask: jnp.log(relative_distance(hidden, mask)),
    "relative_distance": relative_distance,
    "log_subspace_distance": lambda hidden, mask: jnp.log(subspace_distance(hidden, mask)),
}


@arguments_checked
def attribution(
    model: Encoder,
    batch: Batch | ImageBatch,
    *,
    measure: Measure = "log_relative_distance",
    edits: Edits = Edits(),
) -> Float[Array, "L 4 B"]:
    """How much of each layer's change of the distance to consensus comes from attention, MLP and the two norms.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T].
      measure: what is decomposed: ln(d_M / ||H||_F), whose changes along a path multiply factors; d_M / ||H||_F itself;
        or ln d_M.
      edits: edits of the run.

    Returns:
      [L, 4, B] in the order of `PARTS`; summed over the parts it is the change of the measure over the block, to
      rounding, and summed over layers too, that over the encoder's blocks. Negative: tokens come closer. NaN where a
      measure is undefined, as for a sentence of one token.

    Raises:
      OptionError: a measure that does not exist.
      ShapeError: edits that do not fit the model.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> attribution(model, tokenizer(["A film worth seeing.", "Dull."])).shape == (model.config.layers, 4, 2)
    True
    """
    if measure not in MEASURES:
        raise OptionError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}.")
    check_edits(model.config, edits)
    return _attribution(model, batch, edits, measure=measure)


@arguments_checked
def attribute(
    trace: BlockTrace, mask: Bool[Array, "B T"], config: EncoderConfig, measure: Measure = "log_relative_distance"
) -> Float[Array, "4 B"]:
    """`attribution` of one block, for use in a `collect`.

    Where an edit changes `normed`, what the MLP reads, the boundary between `norm_attn` and `mlp` lies at the edited
    value; the sum does not depend on it.

    Args:
      trace: the block's trace.
      mask: True on real tokens, [B T].
      config: the encoder's, which has the placement of the norms.
      measure: see `attribution`.

    Returns:
      [4, B].
    """
    states = jnp.stack(residual_states(trace, config))
    wide = states if states.dtype == jnp.float64 else states.astype(jnp.float32)
    return jnp.diff(MEASURES[measure](wide, jnp.broadcast_to(mask, states.shape[:-1])), axis=0)


def residual_states(trace: BlockTrace, config: EncoderConfig) -> tuple[Float[Array, "B T D"], ...]:
    """The residual stream of a block before, between and after its `PARTS`: five hidden states, [B T D].

    Args:
      trace: the block's trace.
      config: the encoder's, which has the placement of the norms.
    """
    normed = trace.normed if config.placement == "post" else trace.pre_attn
    return trace.input, trace.pre_attn, normed, trace.pre_mlp, trace.hidden


@jax.jit(static_argnames="measure")
def _attribution(model: Encoder, batch: Batch | ImageBatch, edits: Edits, *, measure: Measure) -> Array:
    def collect(trace: BlockTrace) -> Array:
        return attribute(trace, batch.mask, model.config, measure)

    return encode(model, batch, edits=edits, collect=collect)[1]
