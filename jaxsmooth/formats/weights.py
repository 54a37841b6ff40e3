"""Which weight file of a directory is read, and by which reader."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError
from . import safetensors_files, tensorflow_files, torch_files
from .stored import Weights


class Format(NamedTuple):
    """A weight format.

    Attributes:
      files: what its files are called, for errors.
      find: the file of a directory to begin with, or None.
      read: its tensors.
    """

    files: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Weights]


FORMATS = (
    Format("model.safetensors or model.safetensors.index.json", safetensors_files.find, safetensors_files.read),
    Format(torch_files.FILE, torch_files.find, torch_files.read),
    Format("a TensorFlow checkpoint (NAME.index)", tensorflow_files.find, tensorflow_files.read),
)
"""Tried in order: the first whose file is there is read, and the others are left alone."""


def open_weights(directory: Path) -> Weights:
    """The tensors of a model directory that also holds a `config.json`.

    Raises:
      CheckpointError: no weights, or weights that are damaged or hostile; the message names the file.
    """
    for found, form in ((form.find(directory), form) for form in FORMATS):
        if found is not None:
            return form.read(found)
    raise CheckpointError(f"{directory} holds no weights; expected one of: {'; '.join(f.files for f in FORMATS)}.")
