"""The safetensors files of a checkpoint: which there are, what they hold, and every way in which they can be bad."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import safetensors

from .errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("F16", "BF16", "F32", "F64")


class Found(NamedTuple):
    """A tensor in a file: where, under which name, its shape and dtype."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def weight_files(directory: Path) -> list[Path]:
    """A directory's weights: one file, or the shards of its index.

    Raises:
      CheckpointError: there are none, or the index is not to be trusted.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if not index.is_file():
        raise CheckpointError(
            f"{directory} holds neither {WEIGHTS} nor {INDEX}. Older checkpoints hold pytorch_model.bin, a pickle, "
            "which is not read: save it again with save_pretrained(..., safe_serialization=True)."
        )
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
    absent = sorted(name for name in shards if not (directory / name).is_file())
    if absent:
        raise CheckpointError(f"{directory / absent[0]} is missing, though {index.name} names it{and_more(absent)}.")
    return [directory / name for name in sorted(shards)]


def directory_of_tensors(files: list[Path], plain_name: Callable[[str], str | None]) -> dict[str, Found]:
    """Every tensor of the files by its plain name, unless that is None; headers are read, not data.

    Raises:
      CheckpointError: a damaged file, or two tensors of one plain name.
    """
    found: dict[str, Found] = {}
    for file in files:
        with _Opened(file) as handle:
            names = list(handle.keys())
            tensors = {name: handle.get_slice(name) for name in names}
            for name, part in tensors.items():
                plain = plain_name(name)
                if plain is None:
                    continue
                if plain in found:
                    raise CheckpointError(
                        f"{file}: tensor {name!r} occurs twice, first as {found[plain].name!r} in {found[plain].file}."
                    )
                found[plain] = Found(file, name, tuple(part.get_shape()), part.get_dtype())
    return found


def check_tensor(tensor: Found, shape: tuple[int, ...]) -> None:
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


def read_tensor(tensor: Found) -> np.ndarray:
    """A tensor's values.

    Raises:
      CheckpointError: a damaged file, or values that are not finite.
    """
    with _Opened(tensor.file) as handle:
        array = handle.get_tensor(tensor.name)
    if not np.all(np.isfinite(array)):
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} holds values that are not finite. Is the file damaged?"
        )
    return array


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


def _is_plain_name(name: object) -> bool:
    if not isinstance(name, str) or Path(name).name != name or "\\" in name:
        return False
    # Asked for a name that no file can have, a file system raises instead of answering.
    return name.isprintable() and len(name.encode(errors="replace")) <= 255


def where(files: list[Path]) -> str:
    """The weights in an error message."""
    return str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} shards)"


def and_more(names: list[str]) -> str:
    """The rest of a list of which a message names the first."""
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
