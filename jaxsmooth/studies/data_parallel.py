"""Batches over all devices of this process: each gets some of the rows, and computes their quantities alone.

The only maker of a mesh beside training/sharding.py: a study has one axis, the sentences, and no state to shard.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..inputs.batching import EncodedBatch

ROWS = "rows"


def over_devices(batches: Iterable[EncodedBatch]) -> Iterator[EncodedBatch]:
    """The same batches, their rows cut over this process's devices; as they are where there is one device.

    A batch whose rows the devices do not divide is filled up with its last row, which `indices` leaves out, as it
    does all fillers.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        yield from batches
        return
    where = NamedSharding(Mesh(np.asarray(devices), (ROWS,)), PartitionSpec(ROWS))

    def spread(leaf: jax.Array) -> jax.Array:
        fillers = -leaf.shape[0] % len(devices)
        return jax.device_put(jnp.concatenate([leaf, *fillers * [leaf[-1:]]]), where)

    for encoded in batches:
        yield dataclasses.replace(encoded, batch=jax.tree.map(spread, encoded.batch))


def by_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `(model, norms, batch, ...) -> arrays [L B ...]`; where the batch lies over several devices, for each its
    own rows.

    The compiler may then neither gather rows nor let one device's loops wait for another's. Everything but the batch is
    whole on every device.
    """
    plain = jax.jit(function)

    @functools.cache
    def split(mesh: Mesh, count: int) -> Callable[..., Any]:
        whole = PartitionSpec()
        wanted = (whole, whole, PartitionSpec(ROWS), *[whole] * (count - 3))
        # No row depends on another, so there is nothing about replication to check.
        return jax.jit(
            jax.shard_map(function, mesh=mesh, in_specs=wanted, out_specs=PartitionSpec(None, ROWS), check_vma=False)
        )

    @functools.wraps(function)
    def run(model: Any, norms: Any, batch: Any, *more: Any) -> Any:
        mesh = _mesh_of(batch)
        arguments = (model, norms, batch, *more)
        return plain(*arguments) if mesh is None else split(mesh, len(arguments))(*arguments)

    return run


def _mesh_of(batch: Any) -> Mesh | None:
    """The mesh over which `over_devices` has cut a batch, or None."""
    mask = batch.mask
    if isinstance(mask, jax.core.Tracer) or not isinstance(mask, jax.Array):
        return None
    where = mask.sharding
    mesh = where.mesh if isinstance(where, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.axis_names == (ROWS,) else None
