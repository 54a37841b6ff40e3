"""The tensors of a checkpoint, whatever format they lie in: by their plain names, and every way they can be bad."""

from collections.abc import Callable, Iterable

import numpy as np

from ..errors import CheckpointError
from .formats import INDEX as INDEX
from .formats import WEIGHTS as WEIGHTS
from .formats import FileTensor

DTYPES = ("F16", "BF16", "F32", "F64")


def by_plain_name(tensors: Iterable[FileTensor], plain_name: Callable[[str], str | None]) -> dict[str, FileTensor]:
    """Every tensor by its plain name, unless that is None.

    Raises:
      CheckpointError: two tensors of one plain name.
    """
    found: dict[str, FileTensor] = {}
    for tensor in tensors:
        plain = plain_name(tensor.name)
        if plain is None:
            continue
        if plain in found:
            first = found[plain]
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name!r} occurs twice, first as {first.name!r} in {first.file}."
            )
        found[plain] = tensor
    return found


def check_tensor(tensor: FileTensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, or whose numbers are not floating-point.

    Raises:
      CheckpointError: names the tensor and the file.
    """
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{tensor.file}: tensor {tensor.name!r} must be one of {DTYPES}; got {tensor.dtype}.")
    if tensor.shape != shape:
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} must have shape {shape}; got {tensor.shape}. "
            "Does config.json belong to these weights?"
        )


def read_tensor(tensor: FileTensor) -> np.ndarray:
    """A tensor's values.

    Raises:
      CheckpointError: a damaged file, or values that are not finite.
    """
    array = tensor.read()
    if not np.all(np.isfinite(array)):
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} holds values that are not finite. Is the file damaged?"
        )
    return array


def and_more(names: list[str]) -> str:
    """The rest of a list of which a message names the first."""
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
