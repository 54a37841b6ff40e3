"""Activation patching: values of one run put into another, and what that changes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ..bert.checks import check_edits
from ..bert.encoder import embed, encode, keep_nothing
from ..bert.params import Encoder
from ..errors import OptionError, ShapeError, arguments_checked
from ..types import Batch, BlockTrace, Edits, ImageBatch
from .builders import Indices, broadcast, check_site, restrict


@arguments_checked
def record(
    model: Encoder, batch: Batch | ImageBatch, sites: Sequence[str], *, edits: Edits = Edits()
) -> dict[str, Float[Array, "L ..."]]:
    """What a run computed at some sites, every layer stacked, to be put into another run by `patch`.

    Args:
      model: the encoder.
      batch: tokens, segments and mask, [B T].
      sites: names of `SITES`.
      edits: edits of the recorded run.

    Returns:
      site -> values, [L ...]; `embedded` has one entry per layer too. Gains are the model's own,
      whatever `edits` make of them.

    Raises:
      ShapeError: a site that does not exist, or edits that do not fit the model.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> record(model, tokenizer(["Dull."]), ["mixed"])["mixed"].shape[0] == model.config.layers
    True
    """
    for site in sites:
        check_site(site)
    check_edits(model.config, edits)
    return _record(model, batch, edits, sites=tuple(sites))


@arguments_checked
def patch(
    recording: Mapping[str, Array],
    *,
    layers: Indices = None,
    heads: Indices = None,
    tokens: Indices = None,
    keys: Indices = None,
) -> Edits:
    """Put recorded values in place: at each chosen layer its own, at all recorded sites.

    Args:
      recording: what `record` returned. Layers that it does not have, as of a deeper model, become NaN.
      layers, heads, tokens, keys: where; see `restrict`.

    Returns:
      `Edits`, the recording traced.

    Raises:
      ShapeError: as `replace`.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> batch = tokenizer(["Dull."])
    >>> hidden, _ = jaxsmooth.encode(model, batch, edits=patch(record(model, batch, ["attn"])))
    >>> bool(jnp.allclose(hidden, jaxsmooth.encode(model, batch)[0], atol=1e-5))
    True
    """
    for site in recording:
        check_site(site)
    _check_depth(layers, max((len(values) for site, values in recording.items() if site != "embedded"), default=0))
    edits: dict[str, Any] = {site: Partial(_recorded, jnp.asarray(values)) for site, values in recording.items()}
    return restrict(Edits(**edits), layers=layers, heads=heads, tokens=tokens, keys=keys)


class PatchEffect(NamedTuple):
    """What a patch changed in the target run: patched less clean.

    Attributes:
      hidden: difference of the encoder's output, [B T D].
      readout: difference of the readout, of whatever shape it has; None without one.
    """

    hidden: Array
    readout: Any


@arguments_checked
def patch_effect(
    model: Encoder,
    source: Batch | ImageBatch,
    target: Batch | ImageBatch,
    sites: Sequence[str],
    *,
    layers: Indices = None,
    heads: Indices = None,
    tokens: Indices = None,
    keys: Indices = None,
    readout: Callable[[Array, Any], Any] | None = None,
) -> PatchEffect:
    """Activation patching: run the target with values of the source run in place; what changes?

    Args:
      model: the encoder.
      source: the run that values are taken from.
      target: the run that they are put into; of the source's shape.
      sites: which values; see `record`.
      layers, heads, tokens, keys: where; see `restrict`.
      readout: maps the output [B T D] and the target batch to any pytree of arrays, for instance a head's logits.

    Returns:
      A `PatchEffect`.

    Raises:
      ShapeError: batches of different shapes, or as `record` and `restrict`.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> source, target = tokenizer(["A dull film."]), tokenizer(["A fine film."])
    >>> effect = patch_effect(model, source, target, ["mixed"], layers=1, readout=lambda h, batch: h[:, 0])
    >>> effect.readout.shape == (1, model.config.width)
    True
    """
    if source.mask.shape != target.mask.shape:
        raise ShapeError(f"source and target must have one shape; got {source.mask.shape} and {target.mask.shape}.")
    _check_depth(layers, model.config.layers)
    edits = patch(record(model, source, sites), layers=layers, heads=heads, tokens=tokens, keys=keys)
    clean, patched = (encode(model, target, edits=e, collect=keep_nothing)[0] for e in (Edits(), edits))
    if readout is None:
        return PatchEffect(patched - clean, None)
    before, after = readout(clean, target), readout(patched, target)
    return PatchEffect(patched - clean, jax.tree.map(lambda a, b: a - b, after, before))


@arguments_checked
@jax.jit(static_argnames=("site", "over"))
def patch_map(
    model: Encoder, source: Batch | ImageBatch, target: Batch | ImageBatch, *, site: str, over: str = "heads"
) -> Float[Array, "L K B"]:
    """How much patching one head, or one token, of one layer changes the output: a map for finding where it matters.

    Args:
      model: the encoder.
      source: the run that values are taken from.
      target: the run that they are put into; of the source's shape.
      site: which values; it must have the axis.
      over: "heads" or "tokens".

    Returns:
      ||patched - clean||_F / ||clean||_F over real tokens for every layer, head or token, and sentence, [L K B].

    Raises:
      ShapeError: as `patch_effect`.
      OptionError: another axis.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> source, target = tokenizer(["A dull film."]), tokenizer(["A fine film."])
    >>> patch_map(model, source, target, site="context").shape == (model.config.layers, model.config.heads, 1)
    True
    """
    if over not in ("heads", "tokens"):
        raise OptionError(f"over must be 'heads' or 'tokens'; got {over!r}.")
    recording = record(model, source, [site])
    clean = encode(model, target, collect=keep_nothing)[0]
    real = target.mask[..., None]

    def norm(hidden: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.where(real, hidden, 0) ** 2, axis=(-2, -1)))

    def one(place: tuple[Array, Array]) -> Array:
        layer, index = place
        edits = patch(recording, layers=layer, **{over: index})
        return norm(encode(model, target, edits=edits, collect=keep_nothing)[0] - clean) / norm(clean)

    count = model.config.heads if over == "heads" else target.mask.shape[1]
    layers, indices = jnp.meshgrid(jnp.arange(model.config.layers), jnp.arange(count), indexing="ij")
    found = jax.lax.map(one, (layers.ravel(), indices.ravel()))
    return found.reshape(model.config.layers, count, -1)


def _recorded(values: Array, layer: Array, value: Array) -> Array:
    # The embedding's layer is -1 and its recording the same for all.
    return broadcast(jnp.take(values, jnp.maximum(layer, 0), axis=0, mode="fill"), value)


@jax.jit(static_argnames="sites")
def _record(model: Encoder, batch: Batch | ImageBatch, edits: Edits, *, sites: tuple[str, ...]) -> dict[str, Array]:
    def collect(trace: BlockTrace) -> dict[str, Array]:
        return {site: _site_value(trace, site) for site in sites if site != "embedded"}

    kept = encode(model, batch, edits=edits, collect=collect)[1]
    if "embedded" in sites:
        whole = embed(model, batch)
        whole = whole if edits.embedded is None else edits.embedded(jnp.int32(-1), whole).astype(whole.dtype)
        kept["embedded"] = jnp.broadcast_to(whole[None], (model.config.layers, *whole.shape))
    return kept


def _site_value(trace: BlockTrace, site: str) -> Array:
    if site.startswith("scale_"):
        return getattr(trace.block, site.replace("scale_", "norm_")).scale
    return getattr(trace, site)


def _check_depth(layers: Indices, depth: int) -> None:
    if layers is not None and not isinstance(layers, jax.core.Tracer) and np.max(np.asarray(layers)) >= depth:
        raise ShapeError(f"layers must lie in -1..{depth - 1}; got {layers}.")
