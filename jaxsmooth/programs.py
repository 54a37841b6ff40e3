"""Traced programs on disk: what this machine has traced before, it does not trace again.

XLA's cache keeps compiled programs under keys made of traced ones, so every new process traces and lowers first: of
`measure_batch` two to four seconds. `jax.export` keeps the traced program itself, which is read in a tenth of one.
Loading one needs memory for a moment, mostly freed in pieces (`heap.release_freed`).
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from .files import atomic_write
from .heap import release_freed

KEPT = 128
"""Files in a folder; those used least lately go."""


def kept(function: Callable[..., Any], folder: Path | None, *, structs: Sequence[type] = (), **static: Any) -> "Kept":
    """The function, compiled, its traced programs read from a folder where they are there, else written to it.

    A program belongs to one state of this package's sources, to versions of jax and flax, to a platform, to settings of
    precision, to the static arguments, and to the shapes, types and static parts of the others. A file that cannot be
    read is made anew; a folder that cannot be written to costs the tracing alone. The function is called as it is where
    a mesh is set, where arguments lie on several devices or are being traced, and where something static is more than
    its words say, as a function or an object of the user's is: a program kept for it might be another's.

    Args:
      function: a pure function of pytrees of arrays, named; a dictionary, list or tuple of arrays comes back.
      folder: made when it is needed; None keeps nothing.
      structs: classes of named tuples and registered dataclasses that are in what comes back.
      **static: arguments by name that the program is made for.

    Returns:
      A function of the other arguments, by position.

    >>> import tempfile, jax.numpy as jnp
    >>> def times(x, factor):
    ...     return {"product": factor * x}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     double = kept(times, Path(folder), factor=2)
    ...     float(double(jnp.ones(()))["product"]), len(list(Path(folder).iterdir()))
    (2.0, 1)
    """
    for struct in structs if folder else ():
        _write_and_read(struct)
    return Kept(function, folder if _is_told_by_its_words(static) else None, static)


class Kept:
    """What `kept` gives."""

    def __init__(self, function: Callable[..., Any], folder: Path | None, static: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function, self._folder, self._static = function, folder, static
        self._called = functools.partial(function, **static)
        self._programs: dict[str, Any] = {}
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        program, leaves = self._found(arguments)
        return program(*leaves)

    def start(self, *arguments: Any) -> Callable[[], Any]:
        """What gives the results, on whatever thread it is called.

        jax's settings belong to a thread, so a kept program is compiled here, by this one's. What is not kept is given
        to the device's own queue at once, as is all where jax is to look for NaN or infinity.
        """
        program, leaves = self._found(arguments)
        looked_for = any(getattr(jax.config, flag) for flag in ("jax_debug_nans", "jax_debug_infs"))
        if program is self._called or looked_for:
            found = program(*leaves)
            return lambda: found
        where = program, *(device for leaf in leaves for device in leaf.devices())
        if where not in self._compiled:
            self._compiled[where] = program.lower(*leaves).compile()
            release_freed()  # of the some hundred MiB that loading took a half is not needed any more
        return functools.partial(self._compiled[where], *leaves)

    def _found(self, arguments: tuple[Any, ...]) -> tuple[Any, Sequence[Any]]:
        """The program for the arguments, and what to call it with."""
        leaves, tree = jax.tree.flatten(arguments)
        alone = jax.sharding.get_abstract_mesh().empty and all(map(_on_one_device, leaves))
        if self._folder is None or not alone or not all(map(_is_told_by_its_words, _static_parts(tree))):
            return self._called, arguments
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        arrays = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]
        key = _key(self._function, str(tree), self._static, arrays)
        if key not in self._programs:
            traced = lambda *leaves: self._called(*jax.tree.unflatten(tree, leaves))  # noqa: E731
            file = self._folder / f"{self._function.__name__}-{key}.jax"
            self._programs[key] = jax.jit(_program(traced, leaves, file).call)
        return self._programs[key], leaves


def _on_one_device(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return True
    return isinstance(leaf, Array) and not isinstance(leaf, jax.core.Tracer) and len(leaf.devices()) == 1


def _is_told_by_its_words(value: Any) -> bool:
    """Whether what has the same `repr` in another process is the same there."""
    if not _is_known(value if isinstance(value, type) else type(value)):
        return False
    if isinstance(value, Mapping):
        return all(map(_is_told_by_its_words, (*value.keys(), *value.values())))
    if isinstance(value, tuple | list):
        return all(map(_is_told_by_its_words, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_told_by_its_words(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, type | str | int | float)


def _is_known(kind: type) -> bool:
    """Whether the key of a program says which version a class is of."""
    return kind.__module__.partition(".")[0] in ("builtins", "flax", __name__.partition(".")[0])


def _static_parts(tree: Any) -> Iterator[Any]:
    """What is no array in a structure of arguments."""
    node = tree.node_data()
    if node is not None:
        yield node[1]
    for child in tree.children():
        yield from _static_parts(child)


@functools.cache
def _write_and_read(struct: type) -> None:
    """Let jax write and read a class of ours as part of what a program returns."""
    name = f"{struct.__module__}.{struct.__qualname__}"
    if issubclass(struct, tuple):
        export.register_namedtuple_serialization(struct, serialized_name=name)
    else:
        plain: dict[str, Callable[..., Any]] = {"serialize_auxdata": _nothing, "deserialize_auxdata": _no_fields}
        export.register_pytree_node_serialization(struct, serialized_name=name, **plain)


def _nothing(fields: tuple[()]) -> bytes:
    return b""


def _no_fields(written: bytes) -> tuple[()]:
    return ()


def _key(
    function: Callable[..., Any], statics: str, named: dict[str, Any], arrays: list[tuple[tuple[int, ...], Any, bool]]
) -> str:
    names = ("jax_enable_x64", "jax_default_matmul_precision")
    settings = (jax.default_backend(), *(getattr(jax.config, flag) for flag in names))
    whole = (function.__module__, function.__name__, statics, sorted(named.items()), arrays, settings, _sources())
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:32]


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
