"""Fusing the outputs of the layers into one hidden state: weights, concatenation, maximum, gates.

Shi et al. (2022) propose three against over-smoothing. "weights" is what they call concatenation, a scalar per layer;
"concat" is more general, a matrix per layer. "max" and "gate" with "softmax" are theirs. A fusion is a pytree of
parameters, `fuse` applies it to stacked hidden states [L B T D], as `encode` returns them with
`collect=lambda trace: trace.hidden`. `theory.fusion_concat` (weights: matrices a_l I), `fusion_max` and `fusion_gate`
bound what each does to the distance to consensus: if all layers lie in the subspace, only gates can leave it, and only
if they differ between tokens. The gates here are functions of the token's own states, so from exact consensus they do
not; near it they can amplify differences without bound, which the others cannot.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import OptionError, ShapeError, arguments_checked
from ..linalg.precision import einsum
from ..meshes import on_any_mesh
from .config import EncoderConfig
from .norm import accumulation_dtype

Kind = Literal["weights", "concat", "max", "gate"]
FUSIONS: tuple[Kind, ...] = get_args(Kind)
Normalisation = Literal["softmax", "sigmoid"]


@nnx.dataclass
class WeightedFusion(nnx.Pytree):
    """sum_l a_l H_l with a learned scalar per layer: the concatenation of Shi et al. (2022)."""

    weight: Float[Array, " K"] = nnx.data()
    layers: tuple[int, ...] = nnx.static(default=())


@nnx.dataclass
class ConcatFusion(nnx.Pytree):
    """[H_1 ; ... ; H_K] W of the chosen layers; `kernel[k]` is the part of W that belongs to the k-th of them."""

    kernel: Float[Array, "K D E"] = nnx.data()
    layers: tuple[int, ...] = nnx.static(default=())


@nnx.dataclass
class MaxFusion(nnx.Pytree):
    """The elementwise maximum over the chosen layers; no parameters."""

    layers: tuple[int, ...] = nnx.static(default=())


@nnx.dataclass
class GateFusion(nnx.Pytree):
    """Row i is sum_l g_(l,i) H_l[i], g from the learned score H_l[i] w.

    "softmax" over layers is the gate of Shi et al. (2022), who do not say what their score is; "sigmoid" takes every
    score by itself.
    """

    weight: Float[Array, " D"] = nnx.data()
    layers: tuple[int, ...] = nnx.static(default=())
    normalisation: Normalisation = nnx.static(default="softmax")


Fusion = WeightedFusion | ConcatFusion | MaxFusion | GateFusion


@arguments_checked
def init_fusion(
    kind: Kind,
    config: EncoderConfig,
    key: PRNGKeyArray,
    *,
    layers: Sequence[int] | None = None,
    normalisation: Normalisation = "softmax",
    dtype: DTypeLike = jnp.float32,
) -> Fusion:
    """A fusion before training.

    Weights start at 1 / K, the mean of the layers, and concatenation near it (W_l = I / K plus BERT's truncated normal
    of std `config.std_init`), so a pretrained encoder's output is not scrambled. The gate starts at w = 0: the mean
    over layers for "softmax", half their sum for "sigmoid".

    Args:
      kind: one of `FUSIONS`.
      config: the encoder's, for the width and the number of layers.
      key: a `jax.random.key`, used by "concat" alone.
      layers: which blocks' outputs to fuse, from 0, in ascending order; None for all.
      normalisation: of the gates, "softmax" or "sigmoid".
      dtype: floating dtype of the parameters.

    Returns:
      A `WeightedFusion`, `ConcatFusion`, `MaxFusion` or `GateFusion`.

    Raises:
      OptionError: a kind, normalisation or layer that does not exist, or layers that do not ascend.

    >>> import jax
    >>> config = EncoderConfig(vocab=100, width=48, layers=3, heads=4, mlp_width=96)
    >>> init_fusion("concat", config, jax.random.key(0), layers=[1, 2]).kernel.shape
    (2, 48, 48)
    """
    chosen = tuple(range(config.layers)) if layers is None else _whole(layers)
    ascending = all(a < b for a, b in itertools.pairwise(chosen))
    if not chosen or not ascending or chosen[0] < 0 or chosen[-1] >= config.layers:
        raise OptionError(f"layers must ascend within 0..{config.layers - 1}; got {list(chosen)}.")
    if normalisation not in ("softmax", "sigmoid"):
        raise OptionError(f"normalisation must be 'softmax' or 'sigmoid'; got {normalisation!r}.")
    if kind == "weights":
        return WeightedFusion(weight=jnp.full(len(chosen), 1 / len(chosen), dtype), layers=chosen)
    if kind == "max":
        return MaxFusion(layers=chosen)
    if kind == "gate":
        return GateFusion(weight=jnp.zeros(config.width, dtype), layers=chosen, normalisation=normalisation)
    if kind != "concat":
        raise OptionError(f"fusion must be one of {', '.join(FUSIONS)}; got {kind!r}.")
    noise = jax.random.truncated_normal(key, -2.0, 2.0, (len(chosen), config.width, config.width), dtype)
    mean = jnp.eye(config.width, dtype=dtype)[None] / len(chosen)
    return ConcatFusion(kernel=mean + config.std_init * noise, layers=chosen)


def _whole(layers: Any) -> tuple[int, ...]:
    """Layers as given, or an `OptionError` where they are not whole numbers."""
    try:
        return tuple(operator.index(layer) for layer in layers)
    except TypeError as error:
        raise OptionError(f"layers must be whole numbers, as [0, 3]; got {layers!r}.") from error


@arguments_checked
@on_any_mesh(lambda fusion, hidden: hidden[0], lead=(0, 1))
def fuse(
    fusion: Fusion, hidden: Float[Array, "L *B T D"]
) -> tuple[Float[Array, "*B T E"], Float[Array, "K *B T"] | None]:
    """One hidden state from the outputs of all blocks, and how much each layer counts where that is a number.

    Every token is fused by itself, so padding cannot leak into real tokens.

    Args:
      fusion: see `init_fusion`.
      hidden: block outputs, all L of the encoder, [L, ..., T, D].

    Returns:
      `(fused, gates)`: [..., T, D], and the gate or weight of every chosen layer and token, [K, ..., T]; None of "max"
      and "concat".

    Raises:
      ShapeError: fewer layers than the fusion's, or another width.

    >>> import jax, jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["A film worth seeing."])
    >>> _, hidden = jaxsmooth.encode(model, batch, collect=lambda trace: trace.hidden)
    >>> fused, gates = fuse(init_fusion("gate", model.config, jax.random.key(0)), hidden)
    >>> fused.shape == hidden.shape[1:], gates.shape == hidden.shape[:-1]
    (True, True)

    References: Shi et al. (2022), arXiv 2202.08625; max over layers also Xu et al. (2018), Jumping Knowledge; learned
    scalars of frozen layers also Peters et al. (2018), ELMo, arXiv 1802.05365.
    """
    chosen = _chosen(fusion, hidden)
    if isinstance(fusion, MaxFusion):
        return jnp.max(chosen, axis=0), None
    if isinstance(fusion, ConcatFusion):
        return einsum("l...d,lde->...e", chosen, fusion.kernel.astype(chosen.dtype)), None
    weights = gates(fusion, chosen)
    return jnp.sum(weights[..., None].astype(chosen.dtype) * chosen, axis=0), weights


@arguments_checked
def gates(fusion: WeightedFusion | GateFusion, chosen: Float[Array, "K *B T D"]) -> Float[Array, "K *B T"]:
    """How much every chosen layer counts for every token, in at least float32.

    Gates lie in [0, 1], with "softmax" of sum 1 over layers; weights are of any size and the same for all tokens.

    Args:
      fusion: its parameters.
      chosen: outputs of the fusion's K layers, [K, ..., T, D].

    Returns:
      [K, ..., T].

    >>> import jax.numpy as jnp
    >>> gates(GateFusion(jnp.zeros(3), (0, 1)), jnp.ones((2, 1, 3))).ravel()
    Array([0.5, 0.5], dtype=float32)
    """
    wide = accumulation_dtype(chosen.dtype)
    if isinstance(fusion, WeightedFusion):
        shape = (len(fusion.layers), *(1,) * (chosen.ndim - 2))
        return jnp.broadcast_to(fusion.weight.astype(wide).reshape(shape), chosen.shape[:-1])
    scores = einsum("l...d,d->l...", chosen.astype(wide), fusion.weight.astype(wide))
    return jax.nn.sigmoid(scores) if fusion.normalisation == "sigmoid" else jax.nn.softmax(scores, axis=0)


def _chosen(fusion: Fusion, hidden: Array) -> Array:
    last, width = fusion.layers[-1], hidden.shape[-1]
    if hidden.shape[0] <= last:
        raise ShapeError(
            f"hidden must hold every block's output, at least {last + 1}; got {hidden.shape[0]}. "
            "Is it the last hidden state alone?"
        )
    own = _width(fusion)
    if own not in (None, width):
        raise ShapeError(f"hidden must have width {own}, the fusion's; got {width}.")
    # Where all layers are chosen nothing is copied.
    if fusion.layers == tuple(range(hidden.shape[0])):
        return hidden
    return hidden[jnp.asarray(fusion.layers)]


def _width(fusion: Fusion) -> int | None:
    if isinstance(fusion, (MaxFusion, WeightedFusion)):
        return None
    return fusion.kernel.shape[1] if isinstance(fusion, ConcatFusion) else fusion.weight.shape[0]
