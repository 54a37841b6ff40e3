"""Where arrays live: one table from logical axes to mesh axes, the arrays it places, and the processes that share them.

Only this module of training knows meshes. Every array of a run has logical axes ("embed", "heads", "batch", ...);
`RULES` says on which mesh axes each is cut. Of the mesh axes `data` and `fsdp` cut the batch, `fsdp` also the
parameters, `tensor` heads, the MLP and the vocabulary, `sequence` sentences.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ..bert.kernels import Kernel, find_kernel
from ..errors import ConfigError
from ..types import Block, Edits, map_named
from .data.tasks import TrainBatch

AXES = ("data", "fsdp", "tensor", "sequence")

Rules = Mapping[str, tuple[str, ...]]
RULES: Rules = {
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    "embed": ("fsdp",),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
}
"""Logical axis -> mesh axes it is cut over. An axis without a row is whole on every device."""

LOGICAL: dict[str, tuple[str, ...]] = {
    "embeddings.word": ("vocab", "embed"),
    "embeddings.position": ("positions", "embed"),
    "attn.query.kernel": ("layers", "embed", "heads", "head"),
    "attn.key.kernel": ("layers", "embed", "heads", "head"),
    "attn.value.kernel": ("layers", "embed", "heads", "head"),
    "attn.query.bias": ("layers", "heads", "head"),
    "attn.key.bias": ("layers", "heads", "head"),
    "attn.value.bias": ("layers", "heads", "head"),
    "attn.output.kernel": ("layers", "heads", "head", "embed"),
    "up.kernel": ("layers", "embed", "mlp"),
    "up.bias": ("layers", "mlp"),
    "gate.kernel": ("layers", "embed", "mlp"),
    "gate.bias": ("layers", "mlp"),
    "down.kernel": ("layers", "mlp", "embed"),
    "pooler.kernel": ("embed", "pooled"),
    "head.dense.kernel": ("embed", "pooled"),
    "head.out.kernel": ("embed", "labels"),
}
"""Last parts of a parameter's name -> its logical axes. What is not here is small, and whole on every device.

The optimiser's moments and the average are named as their parameters are, and so lie where those lie.
"""

HIDDEN = ("batch", "length", "width")


def make_mesh(text: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices from "data=2,tensor=4".

    Args:
      text: sizes of mesh axes; "" puts all devices on `data`. Axes left out have size 1.
      devices: the devices; None for all there are.

    Returns:
      A mesh with all of `AXES`.

    Raises:
      ConfigError: an unknown or repeated axis, a size that is no positive integer, or sizes that do not multiply to
        the number of devices.

    >>> make_mesh("data=3,tensr=2")
    Traceback (most recent call last):
    ...
    jaxsmooth.errors.ConfigError: mesh axes are data, fsdp, tensor, sequence; got 'tensr'.
    """
    devices = jax.devices() if devices is None else devices
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        axis, _, size = part.partition("=")
        if axis not in AXES:
            raise ConfigError(f"mesh axes are {', '.join(AXES)}; got {axis!r}.")
        if axis in sizes:
            raise ConfigError(f"mesh axis {axis} is given twice in {text!r}.")
        if not size.isdecimal() or int(size) < 1:
            raise ConfigError(f"the size of mesh axis {axis} must be a positive integer; got {size!r}.")
        sizes[axis] = int(size)
    sizes = sizes or {"data": len(devices)}
    shape = [sizes.get(axis, 1) for axis in AXES]
    if math.prod(shape) != len(devices):
        raise ConfigError(
            f"mesh {text!r} needs {math.prod(shape)} devices; got {len(devices)}. Its sizes must multiply to that."
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def check_rules(rules: Rules = RULES) -> None:
    """Refuse a table that cuts two axes of one array over the same mesh axis, or names a mesh axis there is not.

    Args:
      rules: logical axis -> mesh axes.

    Raises:
      ConfigError: names the array, its axes and the mesh axis.
    """
    for logical, axes in rules.items():
        unknown = sorted(set(axes) - set(AXES))
        if unknown:
            raise ConfigError(f"the rule for {logical!r} names {unknown[0]!r}; mesh axes are {', '.join(AXES)}.")
    for name, axes in {**LOGICAL, "hidden states": HIDDEN}.items():
        used = [axis for logical in axes for axis in rules.get(logical, ())]
        twice = sorted({axis for axis in used if used.count(axis) > 1})
        if twice:
            clash = [logical for logical in axes if twice[0] in rules.get(logical, ())]
            raise ConfigError(
                f"{name}: {' and '.join(map(repr, clash))} are both cut over mesh axis {twice[0]!r}; "
                "an array can be cut over a mesh axis once."
            )


def spec(axes: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """How an array is cut. A dimension that its mesh axes do not divide stays whole.

    Args:
      axes: the array's logical axes.
      shape: its shape.
      mesh: the mesh.
      rules: logical axis -> mesh axes.

    Returns:
      One mesh axis, several, or None for each dimension.

    >>> from jax.sharding import AbstractMesh
    >>> tuple(spec(("vocab", "embed"), (30522, 768), AbstractMesh((1, 2, 4, 1), AXES)))  # 4 does not divide 30522
    (None, 'fsdp')
    """
    parts: list[Any] = []
    for logical, size in zip(axes, shape, strict=True):
        cut = tuple(axis for axis in rules.get(logical, ()) if mesh.shape[axis] > 1)
        whole = size % math.prod(mesh.shape[axis] for axis in cut) != 0
        parts.append(None if whole or not cut else cut if len(cut) > 1 else cut[0])
    return PartitionSpec(*parts)


def tree_shardings(tree: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """A sharding for every leaf of a `TaskModel` or a `TrainState`, or of their shapes.

    Args:
      tree: the arrays or shapes.
      mesh: the mesh.
      rules: logical axis -> mesh axes.

    Returns:
      The same tree of shardings.

    Raises:
      ConfigError: a table that `check_rules` refuses.
    """
    check_rules(rules)

    def of(name: str, leaf: Any) -> NamedSharding:
        axes = _logical(name)
        if len(axes) != len(leaf.shape):
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, spec(axes, leaf.shape, mesh, rules))

    return map_named(of, tree)


def _logical(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    known = (".".join(parts[-k:]) for k in (3, 2))
    return next((LOGICAL[name] for name in known if name in LOGICAL), ())


def block_placement(mesh: Mesh, rules: Rules = RULES) -> Callable[[Block], Block] | None:
    """A function that says where one block's parameters lie, for the `place` of `encode`; None on one device.

    It changes no value. Its derivative says the same of the gradient, in the loop that makes it, so that XLA adds up
    each device's part alone (reduce-scatter), in place of the whole of it on every device (all-reduce).

    Args:
      mesh: the mesh.
      rules: logical axis -> mesh axes.
    """

    def of(name: str, leaf: Array) -> Array:
        axes = _logical(name)[1:]  # without that of the layers
        if len(axes) != leaf.ndim or "embed" not in axes or not any(spec(axes, leaf.shape, mesh, rules)):
            return leaf
        # As [D K]: the TPU compiler makes a reduce-scatter along the first axis only, with no reshape in between.
        place, cut = axes.index("embed"), list(spec(axes, leaf.shape, mesh, rules))
        width, along = leaf.shape[place], cut.pop(place)
        where = NamedSharding(mesh, PartitionSpec(along, next(filter(None, cut), None)))
        if place:
            return jax.lax.with_sharding_constraint(leaf.reshape(-1, width).T, where).T.reshape(leaf.shape)
        return jax.lax.with_sharding_constraint(leaf.reshape(width, -1), where).reshape(leaf.shape)

    return None if mesh.size == 1 else lambda block: map_named(of, block)


def unrolled(mesh: Mesh) -> bool:
    """Whether a gradient goes through the blocks one after the other: on one CPU, which is quicker for it.

    The compilers of accelerators take minutes over the loop as it is.

    Args:
      mesh: the mesh.
    """
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def batch_shardings(data: TrainBatch, mesh: Mesh, rules: Rules = RULES, *, rows: int = 0) -> Any:
    """A sharding for every leaf of a batch: [B ...] over the batch axes, [B T] also over `sequence`.

    Args:
      data: a batch, or its shapes.
      mesh: the mesh.
      rules: logical axis -> mesh axes.
      rows: B over all processes where `data` holds only one's; 0 for those of `data`.

    Returns:
      The same tree of shardings.
    """

    def of(leaf: Any) -> NamedSharding:
        shape = leaf.shape if not rows else (leaf.shape[0] * rows // data.weights.shape[0], *leaf.shape[1:])
        return NamedSharding(mesh, spec(HIDDEN[: len(shape)], shape, mesh, rules))

    return jax.tree.map(of, data)


def constraints(mesh: Mesh, rules: Rules = RULES) -> Edits:
    """Edits that pin hidden states to the batch and sequence axes, so the compiler need not guess; the values stay.

    Args:
      mesh: the mesh.
      rules: logical axis -> mesh axes.

    Returns:
      Edits of the embedding output, the residual sum after attention and the block output; none on one device.
    """

    def pin(layer: Array, hidden: Array) -> Array:
        return jax.lax.with_sharding_constraint(hidden, NamedSharding(mesh, spec(HIDDEN, hidden.shape, mesh, rules)))

    return Edits() if mesh.size == 1 else Edits(embedded=pin, pre_attn=pin, hidden=pin)


def attention_kernel(attention: str | Kernel, mesh: Mesh, platform: str = "", rules: Rules = RULES) -> Kernel | None:
    """The kernel that computes attention on a mesh; None for explicit attention.

    Args:
      attention: as in `FinetuneConfig`, or the kernel.
      mesh: the mesh.
      platform: as for `bert.kernels.find_kernel`.
      rules: logical axis -> mesh axes.

    Raises:
      ConfigError: "fused" on a mesh that cuts sentences, which no kernel takes.

    >>> attention_kernel("auto", make_mesh("data=1", jax.devices()[:1])) is None  # on a CPU
    True
    """
    found = find_kernel(attention, platform)
    if found is None or mesh.size == 1:
        return found
    rows, length, heads = (
        tuple(axis for axis in rules.get(name, ()) if mesh.shape[axis] > 1) for name in ("batch", "length", "heads")
    )
    if not length:
        return dataclasses.replace(found, mesh=mesh, rows=rows, heads=heads)
    if found.required:
        raise ConfigError(f"attention='fused' takes whole sentences; the mesh cuts them over {', '.join(length)}.")
    return None


def reads_share(mesh: Mesh, rules: Rules = RULES) -> bool:
    """Whether each process reads its own rows of a batch. If not, each reads all rows and keeps what it needs.

    So it is where processes hold whole parts of the batch; not where a tensor or sequence axis spans processes.

    Args:
      mesh: the mesh.
      rules: logical axis -> mesh axes.
    """
    count = jax.process_count()
    parts = math.prod(mesh.shape[axis] for axis in rules["batch"])
    rows = mesh.devices.reshape(parts, -1)
    owners = [{device.process_index for device in row} for row in rows]
    per = parts // count
    return parts % count == 0 and all(owner == {k // per} for k, owner in enumerate(owners)) if per else False


def place_batch(data: TrainBatch, mesh: Mesh, *, rows: int) -> TrainBatch:
    """A process's numpy batch as global arrays.

    Args:
      data: this process's share of the rows, or all of them.
      mesh: the mesh.
      rows: B over all processes.

    Returns:
      The batch of all processes, cut as `batch_shardings` says.
    """
    shardings = batch_shardings(data, mesh, rows=rows)
    if jax.process_count() == 1:
        return jax.device_put(data, shardings)
    if data.weights.shape[0] < rows:
        return jax.tree.map(lambda leaf, where: jax.make_array_from_process_local_data(where, leaf), data, shardings)

    def whole(leaf: np.ndarray, where: NamedSharding) -> Array:
        return jax.make_array_from_callback(leaf.shape, where, lambda index: leaf[index])

    return jax.tree.map(whole, data, shardings)


def place_tree(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process holds whole, as arrays laid out over the mesh.

    Args:
      tree: a `TaskModel` or a `TrainState`.
      mesh: the mesh.

    Returns:
      Copies, cut as `tree_shardings` says; the originals stay usable.
    """

    def put(leaf: Any, where: NamedSharding) -> Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, where, lambda index: np.array(host[index]))

    return jax.tree.map(put, tree, tree_shardings(tree, mesh))


def on_host(tree: Any) -> Any:
    """Every array whole, as numpy, on every process. All processes must call it.

    Args:
      tree: arrays laid out over a mesh.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Start `jax.distributed` before the first use of a device.

    Args:
      coordinator: "auto" where the platform knows (TPU pods, SLURM, Open MPI); else HOST:PORT of process 0; "" for a
        run of one process.
      processes: how many there are; with an address only.
      process: which of them this is.

    Raises:
      ConfigError: an address without a port, or a process outside 0 ... processes - 1.
    """
    if not coordinator:
        if processes > 1:
            raise ConfigError("several processes need --coordinator HOST:PORT, the address of process 0, or auto.")
        return
    # How processes of the CPU backend communicate; other backends ignore it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator must be HOST:PORT or auto; got {coordinator!r}.")
    if not 0 <= process < processes:
        raise ConfigError(f"--process must lie in 0..{processes - 1}; got {process}.")
    jax.distributed.initialize(coordinator, processes, process)
