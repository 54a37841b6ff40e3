"""Builders of `Edits` that replace or scale a site at chosen layers, heads, tokens and keys."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array

from ..errors import ShapeError, arguments_checked, did_you_mean
from ..types import SITES, Edit, Edits, HeadNumbers, LayerNumbers, as_edited

SITE_AXES = {
    **dict.fromkeys(("embedded", "mixed", "pre_attn", "normed", "mlp", "pre_mlp", "hidden"), "BTD"),
    **dict.fromkeys(("query", "context"), "BNTH"),
    **dict.fromkeys(("key", "value"), "BNSH"),
    **dict.fromkeys(("attn_logits", "attn"), "BNTS"),
    **dict.fromkeys(("std_attn", "std_mlp"), "BT1"),
    **dict.fromkeys(("scale_attn", "scale_mlp"), "D"),
}
"""The axes of every site, by the letters of `types`; a std's last axis has size 1."""

Indices = int | Sequence[int] | np.ndarray | Array | None
"""Which layers, heads or tokens: one, several, or (None) all."""


@arguments_checked
def restrict(
    edits: Edits, *, layers: Indices = None, heads: Indices = None, tokens: Indices = None, keys: Indices = None
) -> Edits:
    """The same edits, taking effect at the chosen layers, heads and tokens only.

    Args:
      edits: any edits.
      layers: blocks, from 0; -1 is the embedding.
      heads: heads, from 0; every edited site must have heads.
      tokens: positions in the sentence, from 0: queries of attention, keys of the sites `key` and `value`.
      keys: attended positions, of `attn` and `attn_logits` only.

    Returns:
      `Edits`. A block or head beyond the model's last is refused by `encode`, which knows how many there are. Where
      `layers` is traced such a block is never reached; a traced head, or a position, beyond the site's size makes the
      value NaN, which is seen, where ignoring it is not.

    Raises:
      ShapeError: an axis that an edited site lacks, layers at which it never occurs, or indices that are not integers.

    >>> import jax.numpy as jnp
    >>> zeroed = restrict(Edits(mixed=lambda layer, x: 0 * x), layers=1, tokens=[0])
    >>> zeroed.mixed(jnp.int32(1), jnp.ones((1, 2, 1))).ravel().tolist()
    [0.0, 1.0]
    """
    chosen: dict[str, Any] = {
        name: _indices(name, value) for name, value in (("heads", heads), ("tokens", tokens), ("keys", keys))
    }
    if chosen["heads"] is not None:
        chosen["heads"] = HeadNumbers(chosen["heads"])
    numbers = _indices("layers", layers)
    at = None if numbers is None else LayerNumbers(numbers)
    restricted: dict[str, Any] = {}
    for site in SITES:
        edit = getattr(edits, site)
        if edit is None:
            continue
        axes = {axis: chosen[name] for name, axis in _axes_of(site).items() if chosen[name] is not None}
        lacking = [name for name, value in chosen.items() if value is not None and name not in _axes_of(site)]
        if lacking:
            raise ShapeError(f"the site {site!r} has axes {SITE_AXES[site]}; it cannot be restricted to {lacking[0]}.")
        _check_reached(site, layers)
        restricted[site] = Partial(_restricted, edit, at, axes)
    return Edits(**restricted, shared_attn=edits.shared_attn)


def _check_reached(site: str, layers: Indices) -> None:
    """Refuse layers at which the site never occurs; traced ones are not looked at."""
    if layers is None or isinstance(layers, jax.Array):
        return
    numbers = np.atleast_1d(np.asarray(layers))
    if not np.any(numbers == -1 if site == "embedded" else numbers >= 0):
        where = "at layer -1" if site == "embedded" else "in blocks, which count from 0"
        raise ShapeError(f"the site {site!r} occurs {where} only; got layers={layers!r}, so the edit would do nothing.")


@arguments_checked
def replace(
    site: str,
    value: ArrayLike,
    *,
    layers: Indices = None,
    heads: Indices = None,
    tokens: Indices = None,
    keys: Indices = None,
) -> Edits:
    """Put a value in the place of what a site computed.

    Args:
      site: a name of `SITES`.
      value: what broadcasts to the site's shape, its axes aligned from the last as in numpy.
      layers, heads, tokens, keys: where; see `restrict`.

    Returns:
      `Edits` of that site, `value` traced.

    Raises:
      ShapeError: no such site, or as `restrict`; when run, a value that does not broadcast.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> edits = replace("std_mlp", 2.0, layers=[0, 1])
    >>> _, trace = jaxsmooth.encode(model, tokenizer(["Dull."]), edits=edits)
    >>> bool((trace.std_mlp[:2] == 2).all()), bool((trace.std_mlp[2:] == 2).any())
    (True, False)
    """
    return _build(site, _replaced, value, layers, heads, tokens, keys)


@arguments_checked
def scale(
    site: str,
    factor: ArrayLike,
    *,
    layers: Indices = None,
    heads: Indices = None,
    tokens: Indices = None,
    keys: Indices = None,
) -> Edits:
    """Multiply what a site computed: `scale("mixed", 0.0, layers=3)` removes the attention of block 3.

    Args:
      site: a name of `SITES`.
      factor: what broadcasts to the site's shape.
      layers, heads, tokens, keys: where; see `restrict`.

    Returns:
      `Edits` of that site, `factor` traced.

    Raises:
      ShapeError: as `replace`.

    >>> scale("context", 0.0, heads=1).context(jnp.int32(0), jnp.ones((1, 2, 1, 1))).ravel().tolist()
    [1.0, 0.0]
    """
    return _build(site, _scaled, factor, layers, heads, tokens, keys)


def _build(site: str, function: Callable, value: ArrayLike, *where: Indices) -> Edits:
    check_site(site)
    layers, heads, tokens, keys = where
    edit: dict[str, Any] = {site: Partial(function, jnp.asarray(value))}
    return restrict(Edits(**edit), layers=layers, heads=heads, tokens=tokens, keys=keys)


def _replaced(new: Array, layer: Array, value: Array) -> Array:
    return broadcast(new, value)


def _scaled(factor: Array, layer: Array, value: Array) -> Array:
    return broadcast(factor, value) * value


def broadcast(new: Array, value: Array) -> Array:
    """`new` in the shape and dtype of a site's value, or a `ShapeError`."""
    try:
        return jnp.broadcast_to(new.astype(value.dtype), value.shape)
    except ValueError as error:
        raise ShapeError(f"a value for a site of shape {value.shape} must broadcast to it; got {new.shape}.") from error


def _restricted(edit: Edit, layers: LayerNumbers | None, chosen: dict[int, Any], layer: Array, value: Array) -> Array:
    edited = as_edited(edit(layer, value), value)
    inside = jnp.ones((), bool)
    here = jnp.ones((), bool) if layers is None else jnp.any(layers.numbers == layer)
    for axis, indices in chosen.items():
        indices = indices.numbers if isinstance(indices, HeadNumbers) else indices
        size = value.shape[axis]
        shape = [1] * value.ndim
        shape[axis] = size
        here = here & jnp.any(jnp.arange(size, dtype=jnp.int32)[:, None] == indices[None], axis=1).reshape(shape)
        inside = inside & jnp.all(indices < size)
    return jnp.where(inside, jnp.where(here, edited, value), jnp.nan)


def _axes_of(site: str) -> dict[str, int]:
    """Name of a selection -> the site's axis it selects on, from the front."""
    axes = SITE_AXES[site]
    token = axes.find("T") if "T" in axes else axes.find("S")
    found = {"heads": axes.find("N"), "tokens": token, "keys": axes.find("S") if "T" in axes else -1}
    return {name: axis for name, axis in found.items() if axis >= 0}


def _indices(name: str, value: Indices) -> Array | np.ndarray | None:
    """int32 [K] of what was chosen."""
    if value is None:
        return None
    # Of a plain number no traced array is made, also within a jit: `encode` is to see it.
    array = jnp.atleast_1d(value) if isinstance(value, jax.Array) else np.atleast_1d(np.asarray(value))
    if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ShapeError(f"{name} must be an integer or several; got {array.dtype} of shape {array.shape}.")
    least = -1 if name == "layers" else 0
    if not isinstance(array, jax.core.Tracer) and array.size and int(np.min(array)) < least:
        raise ShapeError(f"{name} must be at least {least}; got {int(np.min(array))}. They do not count from the end.")
    return array.astype(jnp.int32)


def check_site(site: str) -> None:
    """Refuse a name that is not a site's."""
    if site not in SITES:
        raise ShapeError(f"there is no site {site!r}; the sites are {', '.join(SITES)}.{did_you_mean(site, SITES)}")
