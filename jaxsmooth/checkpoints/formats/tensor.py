"""What every weight format delivers: tensors by name, their shapes and types known, their values read on demand."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""Types of numbers as safetensors spells them, and as they lie in a file."""


class FileTensor(NamedTuple):
    """One tensor of a weight file.

    Attributes:
      file: where it lies; names it in errors.
      name: Hugging Face's name, perhaps behind a model's prefix ("bert.").
      shape: in torch's layout, linear maps output axis first.
      dtype: a key of `DTYPES`, or what the file calls a type that is none of them.
      read: its values; `CheckpointError` where they are cut short or damaged.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray]


class Weights(NamedTuple):
    """The weights of a directory.

    Attributes:
      where: names the file, or the files, in errors.
      tensors: in the order of the files; a name may occur twice, which is the caller's to refuse.
    """

    where: str
    tensors: tuple[FileTensor, ...]
