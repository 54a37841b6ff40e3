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
``E``  width of the embedding tables; D unless a projection follows them
``P``  positions of the position table
=====  ===========================================

The structs are Flax NNX pytrees: `jax.jit`, `grad`, `vmap`, `lax.scan`, optax and orbax take them as they
are, and `dataclasses.replace` edits them.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from .errors import ShapeError, arguments_checked, names_checked, takes


@nnx.dataclass
class Batch(nnx.Pytree):
    """Tokenised sentences, padded to one length.

    `mask` is True on real tokens (special tokens such as [CLS] count as real) and False on padding, wherever that is.
    Without `segments` all tokens are of segment 0. `encode` also takes the fields as numpy arrays, lists, or tensors of
    torch on the CPU.
    """

    tokens: Int[Array, "B T"] = nnx.data()
    segments: Int[Array, "B T"] | None = nnx.data(default=None)
    mask: Bool[Array, "B T"] = nnx.data(default=None)  # a batch without is refused: None only comes after a default


@nnx.dataclass
class ImageBatch(nnx.Pytree):
    """Images for a vision encoder, as Hugging Face's image processors hand them out: channels first, normalised.

    `mask` is True on every token (the class token and one per patch); it stands here so that what reads a
    batch's mask reads this one too.
    """

    pixels: Float[Array, "B C Y X"] = nnx.data()
    mask: Bool[Array, "B T"] = nnx.data()


@nnx.dataclass
class BlockTrace(nnx.Pytree):
    """Everything one block computed, as `encode` hands it to `collect`.

    Reading order is the order of computation in a post-LN block. What `collect` does not return is never
    stored: XLA removes it. `pre_attn` and `pre_mlp` are the residual sums, written U and Z in the theory; in a
    post-LN block they are what the two LayerNorms normalise, in a pre-LN block `pre_mlp` is the output.
    `std_attn` and `std_mlp` are the per-token standard deviations (sqrt(variance + eps)) that the norms of the
    attention and the MLP sub-layer divide by; in a post-LN block their minima over tokens are the sigma_1 and
    sigma_2 of Shi et al. (2022). `normed` is the MLP's input, in either placement. `attn_probs` is the softmax, `attn`
    what the edit of that site makes of it. `attn_before` is the `attn` of the block before, zeros at the first; it is
    there where `encode` is asked for it with `successive=True`.
    """

    layer: Int[Array, ""] = nnx.data()
    block: Any = nnx.data()  # bert.params.Block without its layer axis; this module knows no model
    input: Float[Array, "B T D"] = nnx.data()
    query: Float[Array, "B N T H"] = nnx.data()
    key: Float[Array, "B N S H"] = nnx.data()
    value: Float[Array, "B N S H"] = nnx.data()
    attn_logits: Float[Array, "B N T S"] = nnx.data()
    attn_probs: Float[Array, "B N T S"] = nnx.data()
    attn: Float[Array, "B N T S"] = nnx.data()
    context: Float[Array, "B N T H"] = nnx.data()
    mixed: Float[Array, "B T D"] = nnx.data()
    pre_attn: Float[Array, "B T D"] = nnx.data()
    std_attn: Float[Array, "B T 1"] = nnx.data()
    normed: Float[Array, "B T D"] = nnx.data()
    mlp: Float[Array, "B T D"] = nnx.data()
    pre_mlp: Float[Array, "B T D"] = nnx.data()
    std_mlp: Float[Array, "B T 1"] = nnx.data()
    hidden: Float[Array, "B T D"] = nnx.data()
    attn_before: Float[Array, "B N T S"] | None = nnx.data(default=None)


@nnx.dataclass
class Trace(nnx.Pytree):
    """What `encode` keeps by default, stacked over layers.

    `hidden[l]` is the output of block l (Hugging Face: `hidden_states[l + 1]`), `attn` the attention
    probabilities (`attentions`), `std_attn` and `std_mlp` the standard deviations of the two norms. Where an
    encoder ends in one more norm, `hidden[-1]` is what enters it.
    """

    hidden: Float[Array, "L B T D"] = nnx.data()
    attn: Float[Array, "L B N T S"] = nnx.data()
    std_attn: Float[Array, "L B T 1"] = nnx.data()
    std_mlp: Float[Array, "L B T 1"] = nnx.data()


Edit = Callable[[Array, Array], Array]


@names_checked(ShapeError, "site")
@nnx.dataclass
class Edits(nnx.Pytree):
    """One pure function `(layer, value) -> value` per named site; None leaves the site alone.

    `layer` is a traced int32 scalar counting blocks from 0 (-1 at the embedding), so select layers with
    `jnp.where(layer == 3, ...)`. The result must have the value's shape; it is cast to the value's dtype.
    Sites, in the order in which a post-LN block computes them:

    ===============  ===========  =========================================================
    ``embedded``     B T D        embedding output, the first block's input
    ``query``        B N T H      queries, after any rotary rotation
    ``key``          B N S H      keys, after any rotary rotation
    ``value``        B N S H      values
    ``attn_logits``  B N T S      scaled scores, before keys out of sight are masked out
    ``attn``         B N T S      attention probabilities
    ``context``      B N T H      attention times values, before the output projection
    ``mixed``        B T D        attention sub-layer output, before the residual is added
    ``pre_attn``     B T D        residual sum after attention
    ``std_attn``     B T 1        std that the attention sub-layer's norm divides by
    ``scale_attn``   D            gain of that norm
    ``normed``       B T D        input of the MLP; the residual beside it keeps its value
    ``mlp``          B T D        MLP sub-layer output, before the residual is added
    ``pre_mlp``      B T D        residual sum after the MLP
    ``std_mlp``      B T 1        std that the MLP sub-layer's norm divides by
    ``scale_mlp``    D            gain of that norm
    ``hidden``       B T D        block output
    ===============  ===========  =========================================================

    A plain function is compile-time structure: a new lambda is a new compile. A `jax.tree_util.Partial`
    carries its arrays as traced leaves, so sweeping their values never recompiles.

    `shared_attn`, (first, last) counted from 0, lets the blocks after `first` up to `last` attend by the probabilities
    of block `first`, as its softmax gives them; every block's own edit of `attn` acts on them. Their own queries and
    keys are computed only where something reads them, so the work is saved (Shi et al. 2022, table 1).

    Raises:
      ShapeError: a site that does not exist, or an edit that is no function of two arguments.

    >>> Edits(atn=lambda layer, attn: attn)
    Traceback (most recent call last):
    jaxsmooth.errors.ShapeError: there is no site 'atn'. Did you mean 'attn'?
    """

    embedded: Edit | None = nnx.data(default=None)
    query: Edit | None = nnx.data(default=None)
    key: Edit | None = nnx.data(default=None)
    value: Edit | None = nnx.data(default=None)
    attn_logits: Edit | None = nnx.data(default=None)
    attn: Edit | None = nnx.data(default=None)
    context: Edit | None = nnx.data(default=None)
    mixed: Edit | None = nnx.data(default=None)
    pre_attn: Edit | None = nnx.data(default=None)
    std_attn: Edit | None = nnx.data(default=None)
    scale_attn: Edit | None = nnx.data(default=None)
    normed: Edit | None = nnx.data(default=None)
    mlp: Edit | None = nnx.data(default=None)
    pre_mlp: Edit | None = nnx.data(default=None)
    std_mlp: Edit | None = nnx.data(default=None)
    scale_mlp: Edit | None = nnx.data(default=None)
    hidden: Edit | None = nnx.data(default=None)
    shared_attn: tuple[int, int] | None = nnx.static(default=None)

    def __post_init__(self) -> None:
        for site in SITES:
            edit = getattr(self, site)
            if edit is None:
                continue
            _check_edit(site, edit)
            if not isinstance(edit, Partial):
                setattr(self, site, Partial(edit))


SITES = tuple(field.name for field in dataclasses.fields(Edits) if field.name != "shared_attn")
"""The names of the sites that `Edits` can change, in order of computation."""


def _check_edit(site: str, edit: Any) -> None:
    """Refuse what cannot be called with a layer and a value."""
    if not callable(edit):
        raise ShapeError(
            f"the edit of {site!r} must be a function (layer, value) -> value; got {type(edit).__name__}. To put a "
            "value in place: jaxsmooth.interventions.replace."
        )
    if not takes(edit, 2):
        raise ShapeError(
            f"the edit of {site!r} must be a function of two arguments, (layer, value) -> value; got one of "
            f"{inspect.signature(edit)}. The layer comes first, also where it is not used: lambda layer, value: ..."
        )


@arguments_checked
def compose(*edits: Edits) -> Edits:
    """Edits that do what the given ones do, one after the other: at each site the first acts first.

    Arrays that a `Partial` carries stay traced leaves. Of several `shared_attn` the last counts.

    Raises:
      ShapeError: something that is no `Edits`.

    >>> import jax.numpy as jnp
    >>> double, add = Edits(mixed=lambda layer, v: 2 * v), Edits(mixed=lambda layer, v: v + 1)
    >>> compose(double, add).mixed(jnp.int32(0), jnp.array([1.0]))
    Array([3.], dtype=float32)
    """
    for one in edits:
        if not isinstance(one, Edits):
            raise ShapeError(
                f"compose takes Edits; got {type(one).__name__}. A remedy becomes Edits by remedy(model, batch)."
            )
    combined: dict[str, Any] = {}
    for site in SITES:
        acting = [edit for one in edits if (edit := getattr(one, site)) is not None]
        if acting:
            combined[site] = acting[0] if len(acting) == 1 else Partial(_in_turn, tuple(acting))
    shared = next((one.shared_attn for one in reversed(edits) if one.shared_attn is not None), None)
    return Edits(**combined, shared_attn=shared)


def _in_turn(acting: tuple[Edit, ...], layer: Array, value: Array) -> Array:
    for edit in acting:
        value = as_edited(edit(layer, value), value)
    return value


def as_edited(found: Any, value: Array, what: str = "an edit") -> Array:
    """What an edit returned, in the dtype of the value that it was given.

    Raises:
      ShapeError: no array, or another shape.

    >>> as_edited(2, jnp.ones(()))
    Array(2., dtype=float32)
    """
    try:
        edited = jnp.asarray(found)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"{what} must return an array of shape {value.shape}; got {type(found).__name__}. Did it forget to return?"
        ) from error
    if edited.shape != value.shape:
        raise ShapeError(f"{what} must return shape {value.shape}; got {edited.shape}. Did it drop an axis?")
    return edited.astype(value.dtype)


@nnx.dataclass
class LayerNumbers(nnx.Pytree):
    """Blocks that an edit was asked to act at, where `encode` finds them and refuses those the model lacks."""

    numbers: Int[Array, " K"] | Int[np.ndarray, " K"] = nnx.data()


@nnx.dataclass
class HeadNumbers(LayerNumbers):
    """Heads that an edit was asked to act at, found and refused in the same way."""


@nnx.dataclass
class LayerNorm(nnx.Pytree):
    """Learned gain (`scale`) and shift (`bias`, None for a norm without). The standard deviation is no parameter."""

    scale: Float[Array, "*L D"] = nnx.data()
    bias: Float[Array, "*L D"] | None = nnx.data(default=None)


@nnx.dataclass
class Linear(nnx.Pytree):
    """An affine map. In attention, `query`, `key` and `value` map D -> N H and `output` maps N H -> D."""

    kernel: Float[Array, "..."] = nnx.data()
    bias: Float[Array, "..."] | None = nnx.data(default=None)


@nnx.dataclass
class Attention(nnx.Pytree):
    """Multi-head self-attention: kernels [D N H] for query, key, value and [N H D] for output."""

    query: Linear = nnx.data()
    key: Linear = nnx.data()
    value: Linear = nnx.data()
    output: Linear = nnx.data()


@nnx.dataclass
class Block(nnx.Pytree):
    """One Transformer block. BERT's is post-LN: LN(MLP(LN(Attn(X)))), both residuals inside.

    `gate` is there in a gated MLP, `norm_attn_out` and `norm_mlp_out` in a block with sandwich norms.
    """

    attn: Attention = nnx.data()
    norm_attn: LayerNorm = nnx.data()
    up: Linear = nnx.data()
    down: Linear = nnx.data()
    norm_mlp: LayerNorm = nnx.data()
    gate: Linear | None = nnx.data(default=None)
    norm_attn_out: LayerNorm | None = nnx.data(default=None)
    norm_mlp_out: LayerNorm | None = nnx.data(default=None)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their dotted paths.

    Args:
      tree: any pytree, of arrays or of their shapes.

    Returns:
      Path -> leaf, in the order of `jax.tree.leaves`. Fields are joined by dots ("blocks.attn.query.kernel"); places
      of sequences and keys of dictionaries are in brackets ("optimiser[1].mu.head.out.bias").

    >>> list(named_leaves((Linear(kernel=jnp.ones((2, 3)), bias=jnp.ones(3)), 1.0)))
    ['[0].bias', '[0].kernel', '[1]']
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).strip("."): leaf for path, leaf in leaves}


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """A pytree with every leaf replaced by a function of its dotted path and itself.

    Args:
      function: (path as in `named_leaves`, leaf) -> new leaf.
      tree: any pytree.

    Returns:
      A tree of the same structure.

    >>> map_named(lambda name, leaf: name, Linear(kernel=jnp.ones((2, 3)))).kernel
    'kernel'
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path).strip("."), leaf), tree
    )
