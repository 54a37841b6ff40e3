"""`pytorch_model.bin`: a zip of a pickle and of one member of raw numbers per storage.

Before torch 1.6, as most models of 2018 to 2020 still lie on the hub, it was five pickles, and then the storages one
after another, each with its length. In shards where an index names them.

References: torch.serialization, `_save` and `_legacy_save` (the layouts), read here without torch.
"""

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .look import mistaken, refuse_unfit
from .shards import shards_of
from .tensor import DTYPES, FileTensor, Weights
from .torch_pickle import SIZE_LIMIT, View, read_older_state_dict, read_state_dict

TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SHARING = 4
"""How many times over the tensors may read the archive's bytes: tied weights share a storage, a bomb shares all."""


_OLDER = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of before 1.6 begins: a pickled number."""


class _Archive(NamedTuple):
    path: Path
    sizes: dict[str, int]  # bytes of each storage by its key
    raw: Callable[[str], bytes]  # a storage's bytes


def read(path: Path) -> Weights:
    """Every tensor of the state dict; their numbers are read when they are asked for.

    Args:
      path: a `pytorch_model.bin`, or the index of its shards.

    Returns:
      The tensors, under Hugging Face's names.

    Raises:
      CheckpointError: a file that is damaged, or that holds anything but a state dict.
    """
    if path.name == TORCH_INDEX:
        files = [_read_file(shard) for shard in shards_of(path)]
        return Weights(f"{path.parent} ({len(files)} shards)", tuple(tensor for file in files for tensor in file))
    return Weights(str(path), _read_file(path))


def _read_file(path: Path) -> tuple[FileTensor, ...]:
    refuse_unfit(path)
    try:
        with path.open("rb") as file:
            older = file.read(len(_OLDER)) == _OLDER
        archive, views = _older(path) if older else _zipped(path)
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
        f"{path} is not a whole file as torch.save writes it: {error}. Download it again.{mistaken(path)}"
    )


def _zipped(path: Path) -> tuple[_Archive, dict[str, View]]:
    with zipfile.ZipFile(path) as zipped:
        infos = {info.filename: info for info in zipped.infolist()}
        roots = [
            name.removesuffix("/data.pkl") for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
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
        views = read_state_dict(zipped.read(f"{roots[0]}/data.pkl"), str(path))
    return _Archive(path, sizes, partial(_member, path, data)), views


def _member(path: Path, folder: str, key: str) -> bytes:
    with zipfile.ZipFile(path) as zipped:
        return zipped.read(f"{folder}{key}")


def _older(path: Path) -> tuple[_Archive, dict[str, View]]:
    whole, sizes, places = path.stat().st_size, {}, {}
    with path.open("rb") as file:
        views, storages, place = read_older_state_dict(file.read(SIZE_LIMIT), str(path))
        for key, dtype, numbers in storages:
            file.seek(place)
            stored = int.from_bytes(file.read(8), "little")
            sizes[key], places[key] = numbers * DTYPES[dtype].itemsize, place + 8
            place += 8 + sizes[key]
            if stored != numbers or place > whole:
                raise CheckpointError(
                    f"{path}: storage {key:.40} must hold {numbers} numbers, to byte {place}; got {stored} in a file "
                    f"of {whole} bytes. Was the file cut short?"
                )
    return _Archive(path, sizes, lambda key: _part(path, places[key], sizes[key])), views


def _part(path: Path, place: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(size)


def _stored(archive: _Archive, name: str, view: View) -> FileTensor:
    where = f"{archive.path}: tensor {name!r}"
    storage, itemsize = view.storage, DTYPES[view.storage.dtype].itemsize
    if archive.sizes.get(storage.key) != storage.numbers * itemsize:
        raise CheckpointError(
            f"{where} must lie in a storage {storage.key:.40} of {storage.numbers * itemsize} bytes; got "
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
        flat = np.frombuffer(archive.raw(view.storage.key), DTYPES[view.storage.dtype])
        if not math.prod(view.shape):
            return np.zeros(view.shape, flat.dtype)
        # The stride of an axis of one is never used, and may be anything.
        sizes = zip(view.shape, view.strides, strict=True)
        strides = [stride * flat.itemsize if size > 1 else flat.itemsize for size, stride in sizes]
        return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
    except _BROKEN as error:
        raise _refusal(archive.path, error) from error
