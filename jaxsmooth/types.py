"""The axis dictionary and the pytrees that pass between rooms.

Axes, used in every annotation and (in lower case) in every einsum string:

=====  ===========================================
``L``  layers (blocks)
``B``  sentences in a batch
``T``  tokens, as queries
``S``  tokens, as keys (the same tokens: S == T)
``N``  attention heads
``D``  hidden width
``H``  head width; N * H need not equal D
``F``  MLP width
``V``  vocabulary
=====  ===========================================

The structs are Flax NNX pytrees: `jax.jit`, `grad`, `vmap`, `lax.scan`, optax and orbax take them as they
are, and `dataclasses.replace` edits them. Nothing here computes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int


@nnx.dataclass
class Batch(nnx.Pytree):
    """Tokenised sentences, padded to one length.

    `mask` is True on real tokens (special tokens such as [CLS] count as real) and False on padding.
    """

    tokens: Int[Array, "B T"] = nnx.data()
    segments: Int[Array, "B T"] = nnx.data()
    mask: Bool[Array, "B T"] = nnx.data()


@nnx.dataclass
class BlockTrace(nnx.Pytree):
    """Everything one block computed, as `encode` hands it to `collect`.

    Reading order is the order of computation. What `collect` does not return is never stored: XLA removes
    it. `pre_attn` and `pre_mlp` are the residual sums that the two LayerNorms normalise, written U and Z in
    the theory; `std_attn`, `std_mlp` are their per-token standard deviations (sqrt(variance + eps)), whose
    minima over tokens are the sigma_1 and sigma_2 of Shi et al. (2022).
    """

    layer: Int[Array, ""] = nnx.data()
    block: Any = nnx.data()  # bert.params.Block without its layer axis; this module knows no model
    input: Float[Array, "B T D"] = nnx.data()
    attn_logits: Float[Array, "B N T S"] = nnx.data()
    attn: Float[Array, "B N T S"] = nnx.data()
    mixed: Float[Array, "B T D"] = nnx.data()
    pre_attn: Float[Array, "B T D"] = nnx.data()
    std_attn: Float[Array, "B T 1"] = nnx.data()
    normed: Float[Array, "B T D"] = nnx.data()
    pre_mlp: Float[Array, "B T D"] = nnx.data()
    std_mlp: Float[Array, "B T 1"] = nnx.data()
    hidden: Float[Array, "B T D"] = nnx.data()


@nnx.dataclass
class Trace(nnx.Pytree):
    """What `encode` keeps by default, stacked over layers.

    `hidden[l]` is the output of block l (Hugging Face: `hidden_states[l + 1]`), `attn` the attention
    probabilities (`attentions`), `std_attn` and `std_mlp` the LayerNorm standard deviations.
    """

    hidden: Float[Array, "L B T D"] = nnx.data()
    attn: Float[Array, "L B N T S"] = nnx.data()
    std_attn: Float[Array, "L B T 1"] = nnx.data()
    std_mlp: Float[Array, "L B T 1"] = nnx.data()


Edit = Callable[[Array, Array], Array]


@nnx.dataclass
class Edits(nnx.Pytree):
    """One pure function `(layer, value) -> value` per named site of a block; None leaves the site alone.

    `layer` is a traced int32 scalar counting from 0, so select layers with `jnp.where(layer == 3, ...)`.
    The result must have the value's shape; it is cast to the value's dtype. Sites, in order of computation:

    ===============  ===========  =========================================================
    ``attn_logits``  B N T S      scaled scores, before padded keys are masked out
    ``attn``         B N T S      attention probabilities
    ``mixed``        B T D        attention sub-layer output, before the residual is added
    ``std_attn``     B T 1        std that the attention LayerNorm divides by
    ``scale_attn``   D            gain of the attention LayerNorm
    ``std_mlp``      B T 1        std that the MLP LayerNorm divides by
    ``scale_mlp``    D            gain of the MLP LayerNorm
    ``hidden``       B T D        block output
    ===============  ===========  =========================================================

    A plain function is compile-time structure: a new lambda is a new compile. A `jax.tree_util.Partial`
    carries its arrays as traced leaves, so sweeping their values never recompiles.
    """

    attn_logits: Edit | None = nnx.data(default=None)
    attn: Edit | None = nnx.data(default=None)
    mixed: Edit | None = nnx.data(default=None)
    std_attn: Edit | None = nnx.data(default=None)
    scale_attn: Edit | None = nnx.data(default=None)
    std_mlp: Edit | None = nnx.data(default=None)
    scale_mlp: Edit | None = nnx.data(default=None)
    hidden: Edit | None = nnx.data(default=None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            edit = getattr(self, field.name)
            if edit is not None and not isinstance(edit, Partial):
                setattr(self, field.name, Partial(edit))
