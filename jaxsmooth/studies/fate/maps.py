"""The maps of a model that can be applied again and again, everything in them recomputed at each application.

=====================  =========================================================================================
``attention``          X <- (1/N) sum_h A_h(X) X: the mean over heads of a layer's attention, acting on the tokens
                       themselves. Rows sum to 1, so tokens stay in the convex hull of the first ones.
``attention-values``   X <- sum_h A_h(X) X W_V^h W_O^h + b: the attention sub-layer as the model computes it, values,
                       output projection and biases included, without the residual sum and the norm after it. A norm
                       IN FRONT of the sub-layer (pre-LN and sandwich blocks) is part of what computes A_h and values.
``layer``              X <- block(X): one block with both residual sums, norms and the MLP.
``stack``              X <- all blocks in turn, the last one's output being the first one's input; the norm that some
                       encoders have after the last block is left out.
=====================  =========================================================================================
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ...bert.block import run_block
from ...bert.params import Encoder
from ...bert.positions import relative_bias
from ...interventions import replace
from ...linalg.precision import einsum
from ...types import Block, BlockTrace, Edits, compose

MAPS = ("attention", "attention-values", "layer", "stack")


def imposed_std(std: Array | None) -> Edits:
    """Both norms of every block divide by `std`, whatever their input's is; nothing for None.

    >>> imposed_std(None).std_attn is None
    True
    """
    return Edits() if std is None else compose(replace("std_attn", std), replace("std_mlp", std))


def token_map(
    model: Encoder, kind: str, layer: Int[Array, ""], mask: Bool[Array, "B T"], std: Array | None = None
) -> Callable[[Array], Array]:
    """One of `MAPS` as a function of token vectors, [B T D] -> [B T D]; to be made and used inside one jitted function.

    Args:
      model: the encoder, of any family.
      kind: which map.
      layer: the block, from 0; not read for the stack. Traced, so that all layers are one program.
      mask: True on real tokens, [B T].
      std: imposed on both norms of every block, a scalar; None for the norms' own.

    Returns:
      The map. It reads no padding, and what it puts there means nothing.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["Dull."])
    >>> hidden, trace = jaxsmooth.encode(model, batch)
    >>> apply = token_map(model, "stack", jnp.int32(0), batch.mask)
    >>> bool(jnp.allclose(apply(jaxsmooth.embed(model, batch)), hidden, atol=1e-5))
    True
    """
    config, edits = model.config, imposed_std(std)
    bias = relative_bias(model.relative, mask.shape[1])
    run = functools.partial(run_block, config)

    def stack(x: Array) -> Array:
        # ALBERT's one block, without its layer axis, is used by every step instead of being scanned over.
        shared = _block(model, layer) if config.shared_layers else None

        def step(x: Array, inputs: tuple) -> tuple[Array, None]:
            index, block = inputs
            return run(index, shared or block, x, mask, edits, bias).hidden, None

        layers = jnp.arange(config.layers, dtype=jnp.int32)
        return jax.lax.scan(step, x, (layers, None if config.shared_layers else model.blocks))[0]

    if kind == "stack":
        return stack
    own, image = _block(model, layer), _IMAGES[kind]
    return lambda x: image(run(layer, own, x, mask, edits, bias))


def _block(model: Encoder, layer: Array) -> Block:
    """The parameters of one block, without a layer axis."""
    return jax.tree.map(lambda leaf: leaf[0 if model.config.shared_layers else layer], model.blocks)


def _attended(trace: BlockTrace) -> Array:
    return einsum("bts,bsd->btd", jnp.mean(trace.attn, axis=1), trace.input)


_IMAGES: dict[str, Callable[[BlockTrace], Array]] = {
    "attention": _attended,
    "attention-values": lambda trace: trace.mixed,
    "layer": lambda trace: trace.hidden,
}
