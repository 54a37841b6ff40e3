"""Where a study computes: on the mesh that the model lies on or that is set, else on all devices of this process.

The only maker of a mesh beside training/sharding.py. Where no parameter is cut a study has one axis, the sentences:
each device gets some of the rows, and computes their quantities alone. Where some are (tensor parallelism), the rows
are cut over the mesh axes that are left, and the compiler places the rest.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..bert.params import Encoder
from ..inputs.batching import EncodedBatch

ROWS = "rows"


class Placement(NamedTuple):
    """Where the arrays of a study lie.

    Attributes:
      model: the encoder; on a mesh, each array cut as the caller's is.
      rows: how batches are cut; None for one device.
      mesh: to be set while the study runs, in the place of the caller's: its axes are Auto, so that the compiler may
        cut whatever is computed. None where the caller has none.
    """

    model: Encoder
    rows: NamedSharding | None
    mesh: Mesh | None


def placement(model: Encoder) -> Placement:
    """Where a study of this model computes: see the module."""
    given = _given_mesh(model)
    devices = np.asarray(jax.local_devices()) if given is None else given.devices
    cut = {axis for leaf in jax.tree.leaves(model) for axis in _axes(_spec(leaf))}
    if given is None or not cut:
        mesh = Mesh(devices.ravel(), (ROWS,))
        rows = NamedSharding(mesh, PartitionSpec(ROWS)) if mesh.size > 1 else None
    else:
        mesh = Mesh(devices, given.axis_names)
        rows = NamedSharding(mesh, PartitionSpec(tuple(axis for axis in mesh.axis_names if axis not in cut)))
    if given is None:
        return Placement(model, rows, None)
    moved = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, _spec(leaf))), model)
    return Placement(moved, rows, mesh)


def _given_mesh(model: Encoder) -> Mesh | None:
    """The mesh that an array of the model lies on, else the one that is set (`jax.set_mesh`)."""
    where = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(model))
    lying = (sharding.mesh for sharding in where if isinstance(sharding, NamedSharding))
    return next((mesh for mesh in (*lying, jax.sharding.get_mesh()) if isinstance(mesh, Mesh) and not mesh.empty), None)


def _spec(leaf: Any) -> PartitionSpec:
    sharding = getattr(leaf, "sharding", None)
    return sharding.spec if isinstance(sharding, NamedSharding) else PartitionSpec()


def _axes(spec: PartitionSpec) -> list[str]:
    """The mesh axes that a spec cuts over."""
    return [axis for part in spec for axis in ((part,) if isinstance(part, str) else part or ())]


def over_devices(batches: Iterable[EncodedBatch], rows: NamedSharding | None) -> Iterator[EncodedBatch]:
    """The same batches, their rows cut over devices; as they are where there is one device.

    A batch whose rows the devices do not divide is filled up with its last row, which `indices` leaves out, as it
    does all fillers.
    """
    if rows is None:
        yield from batches
        return
    parts = math.prod(rows.mesh.shape[axis] for axis in _axes(rows.spec))

    def spread(leaf: jax.Array) -> jax.Array:
        fillers = -leaf.shape[0] % parts
        return jax.device_put(np.concatenate([leaf, *fillers * [leaf[-1:]]]), rows)

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
