"""Chosen files taken out of a zip or tar archive whose names, links and sizes are not trusted."""

import contextlib
import dataclasses
import gzip
import io
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from ..errors import AssetError

UNPACKED_LIMIT = 4 * 2**30
"""Bytes that one extraction may write. No pinned asset comes near it; a decompression bomb passes it at once."""

_CORRUPT = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # zipfile: a compression method it lacks
    RuntimeError,  # zipfile: an encrypted member
    UnicodeError,
    ValueError,
)


def extract(
    archive: Path | IO[bytes],
    folder: str,
    patterns: tuple[str, ...],
    into: Path,
    *,
    flat: bool = False,
    limit: int = UNPACKED_LIMIT,
) -> tuple[Path, ...]:
    """Copy the files of one folder of an archive that match the patterns.

    An archive with an escaping name anywhere is refused as a whole, and so is one where a chosen entry is not
    a plain file (a link, a device). tarfile's own "data" filter is not relied on: early releases of Python
    3.11 lack it, and zip files need the same rules.

    Args:
      archive: a `.zip` or `.whl`, or else any tar that `tarfile` can open; or an opened zip.
      folder: path inside the archive; "" for its root.
      patterns: `fnmatch` patterns relative to `folder`; each must match at least one file.
      into: an existing folder; files land there under their paths relative to `folder`.
      flat: files land under their last names instead.
      limit: bytes that may be written in all.

    Returns:
      The files written.

    Raises:
      AssetError: corrupt or hostile archive, nothing matching a pattern, or more than `limit` bytes.
    """
    label = archive.name if isinstance(archive, Path) else "the archive joined from its pieces"
    try:
        with _open_archive(archive) as entries:
            written: list[Path] = []
            for name, entry in _choose(entries, folder, patterns, label):
                target = into / (posixpath.basename(name) if flat else name)
                target.parent.mkdir(parents=True, exist_ok=True)
                limit -= _copy(entry, target, limit, label)
                written.append(target)
            return tuple(written)
    except FileExistsError as error:
        raise AssetError(f"{label} holds {error.filename} twice: it is not the archive expected.") from error
    except _CORRUPT as error:
        raise AssetError(f"{label} is not a readable archive: {error}. Was it cut short?") from error


@dataclasses.dataclass(frozen=True)
class _Entry:
    name: str
    plain: bool
    open: Callable[[], IO[bytes] | None]


@contextlib.contextmanager
def _open_archive(archive: Path | IO[bytes]) -> Iterator[list[_Entry]]:
    # By suffix, not by content: a tar whose last member is a stored zip also looks like a zip.
    if not isinstance(archive, Path) or archive.suffix in (".zip", ".whl"):
        with zipfile.ZipFile(archive) as zipped:
            infos = [info for info in zipped.infolist() if not info.is_dir()]
            yield [_Entry(i.filename, _is_plain(i), lambda i=i: zipped.open(i)) for i in infos]  # type: ignore[misc]
    else:
        with tarfile.open(archive) as tarred:
            members = [member for member in tarred.getmembers() if not member.isdir()]
            yield [_Entry(m.name, m.isreg(), lambda m=m: tarred.extractfile(m)) for m in members]  # type: ignore[misc]


def _is_plain(info: zipfile.ZipInfo) -> bool:
    # 0: written on a system without Unix modes.
    return stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)


def _choose(entries: list[_Entry], folder: str, patterns: tuple[str, ...], label: str) -> list[tuple[str, _Entry]]:
    for entry in entries:
        _check_name(entry.name, label)
    prefix = f"{folder}/" if folder else ""
    inside = [(posixpath.normpath(entry.name), entry) for entry in entries]
    inside = [(name.removeprefix(prefix), entry) for name, entry in inside if name.startswith(prefix)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in inside):
            raise AssetError(f"{label} has no {prefix}{pattern}: it is not the archive expected.")
    chosen = [(name, entry) for name, entry in inside if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for _, entry in chosen:
        if not entry.plain:
            raise AssetError(f"{label}: {entry.name!r} must be a plain file, not a link or a device.")
    return chosen


def _check_name(name: str, label: str) -> None:
    parts = name.split("/")
    # Backslashes and colons are harmless here and separators or drives on Windows; no pinned archive has them.
    if not name or name.startswith("/") or ".." in parts or any(char in name for char in "\\:\0"):
        raise AssetError(f"{label}: the name {name!r} reaches outside the folder; the archive is refused.")


def _copy(entry: _Entry, target: Path, limit: int, label: str) -> int:
    source = entry.open()
    assert source is not None  # tarfile returns None only for what is not a plain file
    copied = 0
    with source, target.open("xb") as out:
        # The size written, not the size the archive claims: a bomb lies about it.
        while chunk := source.read(2**20):
            copied += len(chunk)
            if copied > limit:
                raise AssetError(f"{label} unpacks to more than the limit; {entry.name!r} went past it.")
            out.write(chunk)
    return copied


class Joined(io.RawIOBase):
    """Several files read as one, without a copy of them all.

    Args:
      paths: the files, in order.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [Path(folder, name) for name in "ab"]
    ...     _ = [path.write_bytes(text) for path, text in zip(paths, (b"one ", b"file"))]
    ...     with io.BufferedReader(Joined(paths)) as joined:
    ...         joined.seek(2), joined.read(4)
    (2, b'e fi')
    """

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb") for path in paths]
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._place = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the start, the present place or the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")  # as other files do
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the file that the present place is in; 0 at the very end."""
        number = bisect_right(self._starts, self._place) - 1
        if number >= len(self._files):
            return 0
        file = self._files[number]
        file.seek(self._place - self._starts[number])
        count = file.readinto(memoryview(buffer)[: self._starts[number + 1] - self._place])
        self._place += count
        return count

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        super().close()
