"""Which weight file of a directory is read, and by which reader."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import CheckpointError
from . import onnx, safetensors, tensorflow_files, torch
from .tensor import Weights


class Format(NamedTuple):
    """A weight format.

    Attributes:
      patterns: what its file is called; of several patterns the first that a file matches counts.
      read: the tensors of that file.
    """

    patterns: tuple[str, ...]
    read: Callable[[Path], Weights]


FORMATS = (
    Format((safetensors.WEIGHTS, safetensors.INDEX), safetensors.read),
    Format((torch.TORCH,), torch.read),
    Format((tensorflow_files.PATTERN,), tensorflow_files.read),
    Format((onnx.PATTERN,), onnx.read),
)
"""Tried in order: the first whose file is there is read, and the others are left alone."""


def open_weights(directory: Path) -> Weights:
    """The tensors of a model directory that also holds a `config.json`.

    Raises:
      CheckpointError: no weights, several files of one format, or weights that are damaged or hostile; the message
        names the file.
    """
    for form in FORMATS:
        for pattern in form.patterns:
            found = find_one(directory, pattern)
            if found is not None:
                return form.read(found)
    known = ", ".join(pattern for form in FORMATS for pattern in form.patterns)
    raise CheckpointError(f"{directory} holds no weights; expected a file {known}.")


def find_one(directory: Path, pattern: str) -> Path | None:
    """The directory's file of that pattern, if it has one.

    Raises:
      CheckpointError: it has several.
    """
    files = sorted(path for path in directory.glob(pattern) if path.exists())
    if len(files) > 1:
        raise CheckpointError(f"{directory} must hold one {pattern}; got {', '.join(file.name for file in files[:3])}.")
    return files[0] if files else None
