"""Traced programs on disk: what this machine has traced before, it does not trace again.

XLA's cache keeps compiled programs under keys made of traced ones, so every new process traces and lowers first: of
`measure_batch` two to four seconds. `jax.export` keeps the traced program itself, which is read in a tenth of one.
"""

import functools
import hashlib
import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.typing import DTypeLike
from jaxtyping import Array

from .files import atomic_write

KEPT = 64
"""Files in a folder; those used least lately go."""


def kept(function: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """The function, compiled, its traced programs read from a folder where they are there, else written to it.

    A program belongs to one state of this package's sources, to versions of jax and flax, to a platform, to settings of
    precision, and to the shapes, types and static parts of its arguments. A file that cannot be read is made anew; a
    folder that cannot be written to costs the tracing alone. Where arguments lie on several devices, or have static
    parts that no other process can know, such as functions, the function is called as it is.

    Args:
      function: a pure function of pytrees of arrays, named; a dictionary, list or tuple of arrays comes back.
      folder: made when it is needed.

    >>> import tempfile, jax.numpy as jnp
    >>> def double(x):
    ...     return {"twice": 2 * x}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     float(kept(double, Path(folder))(jnp.ones(()))["twice"]), len(list(Path(folder).iterdir()))
    (2.0, 1)
    """
    ready: dict[str, Callable[..., Any]] = {}

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        statics = str(tree)
        if " at 0x" in statics or not all(map(_on_one_device, leaves)):
            return function(*arguments)
        key = _key(function.__name__, statics, [(leaf.shape, leaf.dtype) for leaf in leaves])
        if key not in ready:
            traced = lambda *leaves: function(*jax.tree.unflatten(tree, leaves))  # noqa: E731
            ready[key] = jax.jit(_program(traced, leaves, folder / f"{function.__name__}-{key}.jax").call)
        return ready[key](*leaves)

    return run


def _on_one_device(leaf: Any) -> bool:
    return isinstance(leaf, Array) and not isinstance(leaf, jax.core.Tracer) and len(leaf.devices()) == 1


def _key(name: str, statics: str, arrays: list[tuple[tuple[int, ...], DTypeLike]]) -> str:
    names = ("jax_enable_x64", "jax_default_matmul_precision")
    settings = (jax.default_backend(), *(getattr(jax.config, flag) for flag in names))
    return hashlib.sha256(repr((name, statics, arrays, settings, _sources())).encode()).hexdigest()[:32]


@functools.cache
def _sources() -> str:
    """Of all that decides how a function is traced."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    versions = [importlib.metadata.version(package) for package in ("jax", "jaxlib", "flax")]
    return f"{digest.hexdigest()} {versions}"


def _program(traced: Callable[..., Any], leaves: list[Array], path: Path) -> export.Exported:
    try:
        found = export.deserialize(bytearray(path.read_bytes()))
        path.touch()
        return found
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a damaged file makes of the reader
        logging.getLogger(__name__).info("%s is traced anew: %s", path.name, error)
    made = export.export(jax.jit(traced))(*leaves)
    try:
        atomic_write(path, bytes(made.serialize()))
        for old in sorted(path.parent.glob("*.jax"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logging.getLogger(__name__).info("%s is not kept: %s", path.name, error)
    return made
