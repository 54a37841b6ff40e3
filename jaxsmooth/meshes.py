"""Public functions on arrays of any mesh: inside them, where an array is cut is left to XLA.

On a mesh of Explicit axes (`jax.make_mesh` makes one) the sharding is part of an array's type, and every gather,
reshape or loop whose result could be cut in two ways is refused. The functions decorated here take such arrays, run
with all axes Auto, and give their results a sharding again. Arrays of Auto axes, and of no mesh, pass untouched.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

Function = TypeVar("Function", bound=Callable[..., Any])


def on_any_mesh(leader: Callable[..., Any] | None = None, *, lead: Any = 0) -> Callable[[Function], Function]:
    """A decorator for functions of arrays: see the module.

    Args:
      leader: the function's arguments -> the array that its results are cut like: axis by axis from the first, as far
        as the lengths agree. The other axes are whole on every device. By default the first array there is.
      lead: for the results, or a tree of some of them, how many axes stand before the first that follows the leader
        (1 where layers are stacked).

    Returns:
      The decorator.

    >>> import jax.numpy as jnp
    >>> @on_any_mesh(lambda x, rows: rows)
    ... def picked(x, rows):
    ...     return x[rows]
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> rows = jax.device_put(jnp.array([2, 0]), NamedSharding(mesh, PartitionSpec("data")))
    >>> jax.typeof(picked(jnp.arange(3.0), rows))
    ShapedArray(float32[2@data])
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, tree = jax.tree.flatten((args, kwargs))
            mesh = _explicit_mesh(leaves)
            if mesh is None:
                return function(*args, **kwargs)
            like = jax.typeof(leader(*args, **kwargs) if leader else _first_array(leaves))
            with jax.sharding.use_abstract_mesh(mesh.update_axis_types(dict.fromkeys(mesh.axis_names, AxisType.Auto))):
                args, kwargs = jax.tree.unflatten(tree, [_left_to_xla(leaf) for leaf in leaves])
                found = function(*args, **kwargs)
            return jax.tree.map(lambda k, part: jax.tree.map(lambda x: _cut_like(like, x, k, mesh), part), lead, found)

        return cast(Function, run)

    return decorate


def _explicit_mesh(leaves: list[Any]) -> AbstractMesh | None:
    """The mesh of Explicit axes that is set or that an array lies on, if there is one."""
    arrays = (jax.typeof(leaf).sharding.mesh for leaf in leaves if isinstance(leaf, jax.Array))
    return next((mesh for mesh in (jax.sharding.get_abstract_mesh(), *arrays) if mesh.explicit_axes), None)


def _first_array(leaves: list[Any]) -> Any:
    return next(leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray))


def _left_to_xla(leaf: Any) -> Any:
    """The array, of a type without sharding; where its parts lie stays the same."""
    if not isinstance(leaf, jax.Array) or not jax.typeof(leaf).sharding.mesh.explicit_axes:
        return leaf
    return jax.sharding.reshard(leaf, NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec()))


def _cut_like(like: Any, leaf: Any, lead: int, mesh: AbstractMesh) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    axes = [None] * lead
    for size, whole, axis in zip(leaf.shape[lead:], like.shape, like.sharding.spec, strict=False):
        if size != whole:
            break
        axes.append(axis)
    return jax.sharding.reshard(leaf, NamedSharding(mesh, PartitionSpec(*axes[: leaf.ndim])))
