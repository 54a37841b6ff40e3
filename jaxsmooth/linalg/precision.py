"""What arithmetic is done in: products that round as their numbers do, sums in float32 at least.

A product of float32 matrices is not one of float32 numbers on every device: unasked, a GPU rounds the factors to 10
bits (TF32) and a TPU to 8 (bfloat16). Every product of this library is asked for here, in full. A precision that the
user states, by `jax.default_matmul_precision`, holds instead. Products of narrower numbers are left to the device.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import ShapeError, arguments_checked

Function = TypeVar("Function", bound=Callable[..., Any])


def product_precision(*factors: Any) -> jax.lax.Precision | None:
    """HIGHEST for factors of 32 bits or more; None, jax's default, for narrower ones or where the user states one.

    A product's derivative has the precision of the product.
    """
    stated = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    narrow = jnp.finfo(jnp.result_type(*factors)).bits < 32
    return None if narrow or stated is not None else jax.lax.Precision.HIGHEST


def matmul(x: Any, y: Any) -> Array:
    """`x @ y`, in full precision.

    >>> import jax.numpy as jnp
    >>> matmul(jnp.ones((1, 2)), jnp.ones((2, 1)))
    Array([[2.]], dtype=float32)
    """
    return jnp.matmul(x, y, precision=product_precision(x, y))


def einsum(subscripts: str, *factors: Any) -> Array:
    """`jnp.einsum`, in full precision.

    >>> import jax.numpy as jnp
    >>> einsum("td,sd->ts", jnp.ones((1, 2)), jnp.ones((1, 2)))
    Array([[2.]], dtype=float32)
    """
    return jnp.einsum(subscripts, *factors, precision=product_precision(*factors))


def at_least_float32(function: Function) -> Function:
    """The function, of arrays in float32 at least: narrower ones are widened, whole numbers made real.

    So whatever it adds up is added up in float32, and what it returns is float32. Lists and tensors are made arrays,
    and whole numbers real, where the annotation asks for it; the leaves of structs are only widened. A mask [B T] of
    token vectors [L B T D] is repeated for every L.

    Called by itself it is one program, not one for every operation, compiled once for each shape and each value of its
    options (numbers of steps, tolerances, names). One that takes a function is left as it is.
    """
    parameters = {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    asked = {name: _types(annotation) for name, annotation in parameters.items()}
    options = tuple(name for name, annotation in parameters.items() if _is_option(annotation))
    takes_functions = any(_is_function(annotation) for annotation in parameters.values())
    rows = _token_vectors(parameters)
    run = function if takes_functions else jax.jit(function, static_argnames=options)

    @arguments_checked
    @functools.wraps(function)
    def widened(*arguments: Any, **named: Any) -> Any:
        given = dict(zip(parameters, arguments, strict=False)) | named
        if len(given) < len(arguments) + len(named):
            return function(*arguments, **named)  # refuses what was given twice, or too much
        wide = {name: _widen(name, value, asked.get(name, ())) for name, value in given.items() if name not in options}
        if rows in wide and "mask" in wide:
            wide["mask"] = _repeated(wide["mask"], wide[rows])
        return run(**wide, **{name: _plain(given[name]) for name in options if name in given})

    return cast(Function, widened)


def _token_vectors(parameters: dict[str, Any]) -> str:
    """The argument whose rows the mask is of, [..., T, D]; "" where there is none."""
    dims = {name: getattr(annotation, "dim_str", "") for name, annotation in parameters.items()}
    rows = (name for name, axes in dims.items() if axes.startswith("*B T ") and not axes.endswith("S"))
    return next(rows, "") if dims.get("mask") == "*B T" else ""


def _repeated(mask: Any, rows: Any) -> Any:
    """The mask of a batch, with the leading axes that it lacks; as it is where it does not fit."""
    lead, own = np.shape(rows)[:-1], np.shape(mask)
    fits = 1 < len(own) < len(lead) and own == lead[-len(own) :]
    return jnp.broadcast_to(mask, lead) if fits else mask


def as_array(name: str, value: Any) -> Any:
    """The value if it is an array of jax or numpy, else as numpy's.

    Args:
      name: of the argument, for the message.
      value: an array, a list, a tensor on the CPU.

    Raises:
      ShapeError: no array of numbers.

    >>> as_array("mask", [True, False])
    array([ True, False])
    """
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch: on a GPU, bfloat16, with a gradient; ragged lists
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ShapeError(
            f"{name} must be an array of numbers; got {type(value).__name__}, which numpy does not read: {reason}. "
            "Lists must be padded to one length, a tensor of torch detached, on the CPU and not of bfloat16 "
            "(`tensor.detach().cpu().float()`)."
        ) from error
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ShapeError(f"{name} must be an array of numbers; got {type(value).__name__} of {array.dtype}.")
    return array


def _types(annotation: Any) -> tuple[str, ...]:
    """Those that an argument's array may have; () where it need not be one."""
    kinds = get_args(annotation) or (annotation,)
    return tuple(dtype for kind in kinds for dtype in getattr(kind, "dtypes", ()))


def _is_option(annotation: Any) -> bool:
    """Whether an argument is a number of steps, a name and the like, and never an array."""
    kinds = get_args(annotation) or (annotation,)
    return get_origin(annotation) is Literal or all(kind in (int, float, str, bool, type(None)) for kind in kinds)


def _plain(option: Any) -> Any:
    """An option that was given as an array of one number is that number: only those are equal by value."""
    return option.item() if isinstance(option, (jax.Array, np.ndarray)) else option


def _is_function(annotation: Any) -> bool:
    kinds = get_args(annotation) if get_origin(annotation) in (types.UnionType, Union) else (annotation,)
    return any(get_origin(kind) is Callable or kind in (Callable, Any) for kind in kinds)


def _widen(name: str, value: Any, types: tuple[str, ...]) -> Any:
    if types and not isinstance(value, (bool, int, float)) and value is not None:
        value = jnp.asarray(as_array(name, value))
        if "float32" in types and not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(jnp.result_type(float))
    return jax.tree.map(_wide, value)


def _wide(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = jnp.asarray(leaf)
    if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf if jnp.finfo(leaf.dtype).bits >= 32 else leaf.astype(jnp.float32)
