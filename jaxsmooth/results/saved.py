"""Results kept in a file, to the bit: arrays as safetensors, everything else as JSON in the file's header."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import DataError, StorageError, arguments_checked
from ..files import as_path, atomic_write
from . import (
    comparison,
    convergence,
    diagnosis,
    each_text,
    every_input,
    fate,
    spread,
    summaries,
    texts,
    verification,
    weights,
)

FORMAT = "jaxsmooth result 1"

Result = (
    diagnosis.Diagnosis
    | comparison.Comparison
    | convergence.HeadConvergence
    | fate.MapConvergence
    | verification.Verification
)

MODULES = (
    *(comparison, convergence, diagnosis, each_text, every_input),
    *(fate, spread, summaries, texts, verification, weights),
)

KINDS = {
    value.__name__: value
    for module in MODULES
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and isinstance(value, type)
}
"""The dataclasses that a file may name: nothing else is ever made of it."""


@arguments_checked
def save_result(result: Result, path: str | os.PathLike[str]) -> Path:
    """Keep what a study found.

    Args:
      result: what `diagnose`, `compare`, `converge` or `verify` returned.
      path: the file, by custom `*.safetensors`; written whole or not at all.

    Returns:
      The path.

    Raises:
      DataError: not a result.
      OptionError: no path.
      StorageError: no room on the disk.

    >>> import jaxsmooth, tempfile
    >>> found = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), ["A film worth seeing.", "Dull."])
    >>> path = save_result(found, Path(tempfile.mkdtemp()) / "found.safetensors")
    >>> bool((load_result(path).rates["L1"].mean == found.rates["L1"].mean).all())
    True
    """
    if not isinstance(result, Result):
        raise DataError(f"result must be what a study returned; got {type(result).__name__}.")
    arrays: dict[str, np.ndarray] = {}
    content = json.dumps(_plain(result, "", arrays), allow_nan=False)
    return atomic_write(as_path("path", path), safetensors.numpy.save(arrays, {"format": FORMAT, "content": content}))


@arguments_checked
def load_result(path: str | os.PathLike[str]) -> Any:
    """What `save_result` kept: reading it runs nobody's code.

    Args:
      path: the file.

    Returns:
      The result, of the class that was saved.

    Raises:
      DataError: not a file of `save_result`, a damaged one, or one of a version with other fields.
      OptionError: no path.
      StorageError: the file is not there or cannot be read.
    """
    cause = "Was it written by `save_result`, and of this version?"
    file_path = as_path("path", path)
    if file_path.exists() and not file_path.is_file():
        raise StorageError(f"{file_path} is no file. Expected the one that `found.save(path)` wrote.")
    try:
        file_path.open("rb").close()  # a missing file is one, whatever safetensors makes of it
    except OSError as error:
        raise StorageError(
            f"{file_path} cannot be read: {error.strerror}. Expected the file that `found.save(path)` wrote."
        ) from error
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        if metadata.get("format") != FORMAT:
            raise DataError(f"{path} holds {metadata.get('format')!r}; expected {FORMAT!r}. {cause}")
        found = _made(json.loads(metadata["content"]), arrays)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no result that can be read: {error}. {cause}") from error
    if not isinstance(found, Result):
        raise DataError(f"{path} holds a {type(found).__name__}; expected what a study returned. {cause}")
    return found


def _plain(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value as JSON; its arrays go to `arrays`, under names that say where they stood."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return {
            "kind": type(value).__name__,
            "fields": {each: _plain(getattr(value, each), f"{name}.{each}".strip("."), arrays) for each in fields},
        }
    if isinstance(value, np.ndarray):
        if np.iscomplexobj(value):  # which safetensors has in single precision only
            return {"complex": _plain(np.stack([value.real, value.imag], axis=-1), name, arrays)}
        arrays[name] = np.ascontiguousarray(value)
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": {key: _plain(each, f"{name}.{key}", arrays) for key, each in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each, f"{name}.{place}", arrays) for place, each in enumerate(value)]}
    if isinstance(value, np.generic):
        return _plain(value.item(), name, arrays)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise DataError(f"{name} is a {type(value).__name__}, which a result does not hold.")


def _made(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    match value:
        case {"kind": kind, "fields": fields}:
            return KINDS[kind](**{name: _made(each, arrays) for name, each in fields.items()})
        case {"array": name}:
            return arrays[name]
        case {"complex": parts}:
            return _made(parts, arrays).view(np.complex128)[..., 0]
        case {"dict": pairs}:
            return {key: _made(each, arrays) for key, each in pairs.items()}
        case {"tuple": parts}:
            return tuple(_made(each, arrays) for each in parts)
        case {"float": text}:
            return float(text)
    raise ValueError(f"an unknown entry, {sorted(value)}")
