"""The tensors of a checkpoint in any format: found by their plain names, checked, read."""

from collections.abc import Callable, Iterable

import numpy as np

from ..errors import CheckpointError
from .formats import INDEX as INDEX
from .formats import WEIGHTS as WEIGHTS
from .formats import FileTensor

DTYPES = ("F16", "BF16", "F32", "F64")


class CheckpointWarning(UserWarning):
    """A checkpoint holds something besides the model, which is left out; the message names it."""


def by_plain_name(tensors: Iterable[FileTensor], plain_name: Callable[[str], str | None]) -> dict[str, FileTensor]:
    """Every tensor by its plain name, unless that is None.

    Args:
      tensors: in the order of the files.
      plain_name: a tensor's name in a file -> its plain name, or None for one that is not wanted.

    Returns:
      Plain name -> tensor, in the same order.

    Raises:
      CheckpointError: two tensors of one plain name that differ. A module that is reached by two ways is stored twice.
    """
    found: dict[str, FileTensor] = {}
    for tensor in tensors:
        plain = plain_name(tensor.name)
        if plain is None:
            continue
        first = found.setdefault(plain, tensor)
        if first is not tensor and not _are_equal(first, tensor):
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name!r} occurs twice, with other numbers first as {first.name!r} in "
                f"{first.file}."
            )
    return found


def _are_equal(first: FileTensor, second: FileTensor) -> bool:
    same = (first.shape, first.dtype) == (second.shape, second.dtype)
    return same and first.read().tobytes() == second.read().tobytes()


def check_tensor(tensor: FileTensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, or whose numbers are not floating-point.

    Args:
      tensor: its values are not read.
      shape: the expected shape, in torch's layout.

    Raises:
      CheckpointError: names the tensor and the file.
    """
    if tensor.dtype not in DTYPES:
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} must be one of {DTYPES}; got {tensor.dtype}. Quantised weights are "
            "not read: take the model that they were made from."
        )
    if tensor.shape != shape:
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} must have shape {shape}; got {tensor.shape}. "
            "Does config.json belong to these weights?"
        )


def read_tensor(tensor: FileTensor, *, finite: bool = True) -> np.ndarray:
    """A tensor's values.

    Args:
      tensor: one that `check_tensor` accepts.
      finite: whether values that are not are refused.

    Returns:
      An array of its shape and of the dtype in the file.

    Raises:
      CheckpointError: a damaged file, or values that are not finite.
    """
    array = tensor.read()
    if finite and not np.all(np.isfinite(array)):
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} holds values that are not finite. Is the file damaged?"
        )
    return array


def and_more(names: list[str]) -> str:
    """The rest of a list of which a message names the first.

    >>> and_more(["a", "b", "c"]), and_more(["a"])
    (', and 2 more', '')
    """
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
