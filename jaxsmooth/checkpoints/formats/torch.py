"""`pytorch_model.bin` of torch 1.6 and later: a zip of a pickle and of one member of raw numbers per storage.

In shards where an index names them.

References: torch.serialization, `_save` (the layout), read here without torch.
"""

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .look import mistaken, refuse_unfit
from .shards import shards_of
from .tensor import DTYPES, FileTensor, Weights
from .torch_pickle import View, read_state_dict

TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SHARING = 4
"""How many times over the tensors may read the archive's bytes: tied weights share a storage, a bomb shares all."""


class _Archive(NamedTuple):
    path: Path
    root: str  # folder of all members
    sizes: dict[str, int]  # bytes of each storage by its key


def read(path: Path) -> Weights:
    """Every tensor of the state dict; their numbers are read when they are asked for.

    Args:
      path: a `pytorch_model.bin`, or the index of its shards.

    Returns:
      The tensors, under Hugging Face's names.

    Raises:
      CheckpointError: a file that is damaged, of torch's older format, or that holds anything but a state dict.
    """
    if path.name == TORCH_INDEX:
        files = [_read_file(shard) for shard in shards_of(path)]
        return Weights(f"{path.parent} ({len(files)} shards)", tuple(tensor for file in files for tensor in file))
    return Weights(str(path), _read_file(path))


def _read_file(path: Path) -> tuple[FileTensor, ...]:
    refuse_unfit(path)
    try:
        with zipfile.ZipFile(path) as zipped:
            archive = _survey(path, zipped)
            views = read_state_dict(zipped.read(f"{archive.root}/data.pkl"), str(path))
    except _BROKEN as error:
        raise _refusal(path, error) from error
    tensors = tuple(_stored(archive, name, view) for name, view in views.items())
    needed = sum(view.storage.numbers * DTYPES[view.storage.dtype].itemsize for view in views.values())
    if needed > SHARING * path.stat().st_size:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes, but its tensors would read {needed}: they share storages "
            "without need. Save a state dict of cloned tensors."
        )
    return tensors


# What zipfile raises for damaged archives: NotImplementedError for an unknown compression, RuntimeError for encryption.
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError)


def _refusal(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    return CheckpointError(
        f"{path} is not a whole zip archive as torch.save writes it since 1.6: {error}. Download it again; or, if it "
        f"is older, load it with torch and save it again.{mistaken(path)}"
    )


def _survey(path: Path, zipped: zipfile.ZipFile) -> _Archive:
    infos = {info.filename: info for info in zipped.infolist()}
    roots = [name.removesuffix("/data.pkl") for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or len(infos) < len(zipped.infolist()):
        raise CheckpointError(f"{path} must hold one data.pkl, and no name twice; got {sorted(infos)[:3]}.")
    # torch compresses nothing; what is compressed may be any size once unpacked.
    packed = [info.filename for info in infos.values() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(f"{path}: {packed[0]!r} is compressed, which torch.save never does.")
    order = f"{roots[0]}/byteorder"
    if order in infos and zipped.read(order) != b"little":
        raise CheckpointError(f"{path} must hold little-endian numbers; got byteorder {zipped.read(order)[:20]!r}.")
    data = f"{roots[0]}/data/"
    sizes = {name.removeprefix(data): info.file_size for name, info in infos.items() if name.startswith(data)}
    return _Archive(path, roots[0], sizes)


def _stored(archive: _Archive, name: str, view: View) -> FileTensor:
    where = f"{archive.path}: tensor {name!r}"
    storage, itemsize = view.storage, DTYPES[view.storage.dtype].itemsize
    if archive.sizes.get(storage.key) != storage.numbers * itemsize:
        raise CheckpointError(
            f"{where} must lie in a member data/{storage.key:.40} of {storage.numbers * itemsize} bytes; got "
            f"{archive.sizes.get(storage.key, 'none')}. Was the file cut short?"
        )
    reach = sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    end = view.offset + reach + 1 if math.prod(view.shape) else 0
    # A stride of 0 would repeat numbers without end.
    if end > storage.numbers or math.prod(view.shape) > storage.numbers:
        raise CheckpointError(
            f"{where} of shape {view.shape} and strides {view.strides} reaches beyond its storage of {storage.numbers}."
        )
    return FileTensor(archive.path, name, view.shape, storage.dtype, lambda: _read(archive, view))


def _read(archive: _Archive, view: View) -> NDArray:
    try:
        with zipfile.ZipFile(archive.path) as zipped:
            raw = zipped.read(f"{archive.root}/data/{view.storage.key}")
        flat = np.frombuffer(raw, DTYPES[view.storage.dtype])
        if not math.prod(view.shape):
            return np.zeros(view.shape, flat.dtype)
        # The stride of an axis of one is never used, and may be anything.
        sizes = zip(view.shape, view.strides, strict=True)
        strides = [stride * flat.itemsize if size > 1 else flat.itemsize for size, stride in sizes]
        return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
    except _BROKEN as error:
        raise _refusal(archive.path, error) from error
