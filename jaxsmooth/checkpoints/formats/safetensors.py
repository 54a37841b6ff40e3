"""Hugging Face's own format: `model.safetensors`, whole or in shards that an index names."""

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from ...errors import CheckpointError
from .look import mistaken, refuse_unfit
from .shards import shards_of
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
    files = shards_of(path) if path.name == INDEX else [path]
    where = str(path) if len(files) == 1 else f"{path.parent} ({len(files)} shards)"
    return Weights(where, tuple(stored for file in files for stored in _header(file)))


def _header(file: Path) -> list[FileTensor]:
    refuse_unfit(file)
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


class _Opened:
    """A safetensors file whose every refusal is a `CheckpointError` that names it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Any:
        try:
            self.handle = safetensors.safe_open(self.file, framework="numpy").__enter__()
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.file} is not a whole safetensors file: {error}. Download it again.{mistaken(self.file)}"
            ) from error
        return self.handle

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.handle.__exit__(kind, error, trace)
        if isinstance(error, (safetensors.SafetensorError, OSError, ValueError)) and not isinstance(
            error, CheckpointError
        ):
            raise CheckpointError(f"{self.file} cannot be read: {error}") from error
