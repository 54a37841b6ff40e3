"""A traced JAX function run in numpy, where it would take longer to compile it than to run it once.

The program is the function's own, so there is no second text of the mathematics. A primitive that is not in the table
is run by JAX.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.special
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Primitive = Callable[..., Any]


def run_on_host(program: ClosedJaxpr, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Evaluate a program, equation by equation.

    Args:
      program: from `jax.make_jaxpr`.
      arguments: the flat arguments.

    Returns:
      The flat results.

    >>> program = jax.make_jaxpr(lambda x: jax.nn.softmax(x, axis=-1))(np.zeros(4, np.float32))
    >>> run_on_host(program, [np.zeros(4, np.float32)])[0]
    array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    with np.errstate(all="ignore"):  # values that are not finite are the caller's to see
        return _run(program.jaxpr, program.consts, arguments)


def _run(program: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip((*program.constvars, *program.invars), (*consts, *arguments), strict=True))

    def value(atom: Any) -> Any:
        if not isinstance(atom, Literal):
            return values[atom]
        aval: Any = atom.aval
        return np.asarray(atom.val, aval.dtype)

    for equation in program.eqns:
        inputs = [value(atom) for atom in equation.invars]
        values.update(zip(equation.outvars, _step(equation, inputs), strict=True))
    return [value(atom) for atom in program.outvars]


def _step(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    name, parameters = equation.primitive.name, equation.params
    if name == "cond":
        chosen = parameters["branches"][int(inputs[0])]
        return _run(chosen.jaxpr, chosen.consts, inputs[1:])
    inner: Any = next((parameters[key] for key in ("jaxpr", "call_jaxpr") if key in parameters), None)
    if name == "scan":
        return _scan(inner, inputs, parameters)
    if isinstance(inner, ClosedJaxpr):
        return _run(inner.jaxpr, inner.consts, inputs)
    out = equation.outvars[0].aval
    found = _PRIMITIVES[name](*inputs, **parameters) if name in _PRIMITIVES else NotImplemented
    if found is NotImplemented:
        found = equation.primitive.bind(*map(jax.numpy.asarray, inputs), **parameters)
        return [np.asarray(each) for each in found] if equation.primitive.multiple_results else [np.asarray(found)]
    return [np.asarray(found, out.dtype)]


def _scan(body: ClosedJaxpr, inputs: list[Any], parameters: dict[str, Any]) -> list[Any]:
    consts, carried, length = parameters["num_consts"], parameters["num_carry"], parameters["length"]
    fixed, carry, stacked = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
    rows: list[list[Any]] = []
    for place in range(length)[:: -1 if parameters["reverse"] else 1]:
        results = _run(body.jaxpr, body.consts, [*fixed, *carry, *(each[place] for each in stacked)])
        carry, row = results[:carried], results[carried:]
        rows.append(row)
    rows = rows[:: -1 if parameters["reverse"] else 1]
    return [*carry, *(np.stack(column) for column in zip(*rows, strict=True))]


def _broadcast(x: Any, *, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...], **_: Any) -> Any:
    kept = [1] * len(shape)
    for axis, place in enumerate(broadcast_dimensions):
        kept[place] = x.shape[axis]
    return np.broadcast_to(x.reshape(kept), shape)


def _dot(x: Any, y: Any, *, dimension_numbers: Any, **_: Any) -> Any:
    (x_summed, y_summed), (x_batch, y_batch) = dimension_numbers
    x_free = [k for k in range(x.ndim) if k not in (*x_summed, *x_batch)]
    y_free = [k for k in range(y.ndim) if k not in (*y_summed, *y_batch)]
    batch = [x.shape[k] for k in x_batch]
    left, right = [x.shape[k] for k in x_free], [y.shape[k] for k in y_free]
    summed = math.prod(x.shape[k] for k in x_summed)
    x = x.transpose(*x_batch, *x_free, *x_summed).reshape(*batch, math.prod(left), summed)
    y = y.transpose(*y_batch, *y_summed, *y_free).reshape(*batch, summed, math.prod(right))
    return (x @ y).reshape(*batch, *left, *right)


def _gather(x: Any, ids: Any, *, dimension_numbers: Any, slice_sizes: tuple[int, ...], mode: Any, **_: Any) -> Any:
    """Whole rows of a table, which is all that an encoder looks up; NaN for an id without a row."""
    numbers, last = dimension_numbers, ids.ndim - 1
    rows = numbers.collapsed_slice_dims == numbers.start_index_map == (0,) and not numbers.operand_batching_dims
    if not rows or slice_sizes != (1, *x.shape[1:]) or numbers.offset_dims != tuple(range(last, last + x.ndim - 1)):
        return NotImplemented
    ids = ids[..., 0]
    inside = (ids >= 0) & (ids < x.shape[0])
    if not inside.all() and mode != jax.lax.GatherScatterMode.FILL_OR_DROP:
        return NotImplemented
    found = x[np.where(inside, ids, 0)]
    return found if inside.all() else np.where(inside.reshape(inside.shape + (1,) * (x.ndim - 1)), found, np.nan)


def _select(which: Any, *cases: Any, **_: Any) -> Any:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else NotImplemented


def _div(x: Any, y: Any, **_: Any) -> Any:
    return x / y if np.issubdtype(x.dtype, np.floating) else np.sign(x) * np.sign(y) * (abs(x) // abs(y))


def _slice(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any, **_: Any) -> Any:
    steps = strides or (1,) * x.ndim
    return x[tuple(slice(*each) for each in zip(start_indices, limit_indices, steps, strict=True))]


def _iota(*, dtype: Any, shape: tuple[int, ...], dimension: int, **_: Any) -> Any:
    along = [-1 if k == dimension else 1 for k in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(along), shape)


def _platform(*, platforms: Sequence[tuple[str, ...] | None], **_: Any) -> Any:
    """Which of the texts for several platforms is the host's."""
    return next(k for k, names in enumerate(platforms) if names is None or "cpu" in names)


def _cumsum(x: Any, *, axis: int, reverse: bool, **_: Any) -> Any:
    return NotImplemented if reverse else np.cumsum(x, axis=axis, dtype=x.dtype)


def _elementwise(function: Primitive) -> Primitive:
    return lambda *inputs, **_: function(*inputs)


_SAME_NAME = ("abs", "add", "cos", "exp", "floor", "log", "sign", "sin", "sqrt", "square", "tanh")
_ELEMENTWISE: dict[str, Primitive] = {
    **{name: getattr(np, name) for name in _SAME_NAME},
    "and": np.bitwise_and,
    "eq": np.equal,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "logistic": scipy.special.expit,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rem": np.fmod,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sub": np.subtract,
    # the result's dtype is the equation's
    **dict.fromkeys(("convert_element_type", "copy", "stop_gradient"), lambda x: x),
}
_PRIMITIVES: dict[str, Primitive] = {
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda *parts, dimension, **_: np.concatenate(parts, axis=dimension),
    "cumsum": _cumsum,
    "div": _div,
    "dot_general": _dot,
    "gather": _gather,
    "integer_pow": lambda x, y, **_: x**y,
    "iota": _iota,
    "platform_index": _platform,
    "reduce_and": lambda x, axes, **_: np.all(x, axis=axes),
    "reduce_max": lambda x, axes, **_: np.max(x, axis=axes),
    "reduce_sum": lambda x, axes, **_: np.sum(x, axis=axes, dtype=x.dtype),
    "reshape": lambda x, new_sizes, **_: x.reshape(new_sizes),
    "select_n": _select,
    "slice": _slice,
    "squeeze": lambda x, dimensions, **_: np.squeeze(x, dimensions),
    "stack": lambda *parts, axis, **_: np.stack(parts, axis),
    "transpose": lambda x, permutation, **_: x.transpose(permutation),
}
