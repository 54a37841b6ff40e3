"""Functions without a derivative in reverse say so, by name, in the place of JAX's words about its loops."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import linear_call
from jaxtyping import Array

from ..errors import DerivativeError

Function = TypeVar("Function", bound=Callable[..., Any])


def forward_only(function: Function) -> Function:
    """Decorator: what the function returns can be differentiated forwards (`jax.jvp`); in reverse, an error names it.

    For functions whose loops go on until something is reached, or are of no fixed length for another reason: in reverse
    every step would have to be kept.

    >>> import jax, jax.numpy as jnp
    >>> @forward_only
    ... def halved(x):
    ...     return jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, x)
    >>> float(jax.jvp(halved, (8.0,), (1.0,))[1])
    0.125
    >>> try:
    ...     jax.grad(halved)(8.0)
    ... except DerivativeError as error:
    ...     print(str(error).split(":")[0])
    `halved` has no derivative in reverse (jax.grad, jax.vjp)
    """

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        guarded = functools.partial(_guarded, function.__qualname__)
        return jax.tree.map(guarded, function(*arguments, **options))

    return run  # type: ignore[return-value]


def _guarded(name: str, leaf: Any) -> Any:
    real = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return _guard(name, leaf) if real else leaf


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _guard(name: str, value: Array) -> Array:
    return value


@_guard.defjvp
def _guard_tangent(name: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def refuse(_: Any, change: Array) -> Array:
        raise DerivativeError(
            f"`{name}` has no derivative in reverse (jax.grad, jax.vjp): its loops have no fixed length. "
            "Use jax.jvp or jax.jacfwd, or jax.lax.stop_gradient on what it returns."
        )

    return primals[0], linear_call(lambda _, change: change, refuse, (), tangents[0])
