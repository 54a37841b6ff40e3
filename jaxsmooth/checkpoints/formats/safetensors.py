"""Hugging Face's own format: `model.safetensors`, whole or in shards that an index names."""

import json
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from ...errors import CheckpointError
from .tensor import FileTensor, Weights

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(path: Path) -> Weights:
    """Every tensor of the file, or of the shards; headers are read, not data.

    Args:
      path: a `model.safetensors`, or the index of its shards.

    Returns:
      The tensors, under Hugging Face's names.

    Raises:
      CheckpointError: a file that is damaged, or an index that names what is not there.
    """
    files = [path] if path.name == WEIGHTS else _shards(path)
    where = str(path) if len(files) == 1 else f"{path.parent} ({len(files)} shards)"
    return Weights(where, tuple(stored for file in files for stored in _header(file)))


def _header(file: Path) -> list[FileTensor]:
    with _Opened(file) as handle:
        names = list(handle.keys())  # a handle is no mapping: it cannot be iterated over
        parts = {name: handle.get_slice(name) for name in names}
        return [
            FileTensor(file, name, tuple(part.get_shape()), part.get_dtype(), partial(_tensor, file, name))
            for name, part in parts.items()
        ]


def _tensor(file: Path, name: str) -> NDArray:
    with _Opened(file) as handle:
        return np.asarray(handle.get_tensor(name))


def _shards(index: Path) -> list[Path]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not a safetensors index (JSON with a weight_map): {error!r}") from error
    # A shard must be a plain name: an index cannot point outside its own directory.
    strangers = [name for name in shards if not _is_plain_name(name)]
    if strangers or not shards:
        raise CheckpointError(
            f"{index}: weight_map must name files of its own directory; got {sorted(map(str, shards))[:3]}."
        )
    absent = sorted(name for name in shards if not (index.parent / name).is_file())
    if absent:
        more = f", and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{index.parent / absent[0]} is missing, though {index.name} names it{more}.")
    return [index.parent / name for name in sorted(shards)]


def _is_plain_name(name: object) -> bool:
    if not isinstance(name, str) or Path(name).name != name or "\\" in name:
        return False
    # Asked for a name that no file can have, a file system raises instead of answering.
    return name.isprintable() and len(name.encode(errors="replace")) <= 255


class _Opened:
    """A safetensors file whose every refusal is a `CheckpointError` that names it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Any:
        try:
            self.handle = safetensors.safe_open(self.file, framework="numpy").__enter__()
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.file} is not a whole safetensors file: {error}. Download it again."
            ) from error
        return self.handle

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.handle.__exit__(kind, error, trace)
        if isinstance(error, (safetensors.SafetensorError, OSError, ValueError)) and not isinstance(
            error, CheckpointError
        ):
            raise CheckpointError(f"{self.file} cannot be read: {error}") from error
