"""An archive that comes in several distributions: pieces kept between interrupted fetches, read as one file."""

import io
import os
import shutil
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..errors import AssetError
from .archives import extract
from .cache import CACHE_VARIABLE, cache_dir, pieces_folder, sha256_of
from .registry import Asset, Distribution


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

    def tell(self) -> int:
        """The present place."""
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


def kept_piece(distribution: Distribution) -> Path | None:
    """The piece that an earlier, interrupted fetch took out of a verified distribution, if it is still whole.

    A piece's name holds its own sha256, so that what lies there proves itself; one that does not is removed.
    """
    for path in sorted(pieces_folder(distribution).glob("*")):
        if sha256_of(path) == path.name:
            return path
        path.unlink()
    return None


def keep_piece(distribution: Distribution, archive: Path, inner: str, staging: Path) -> Path:
    """Take the piece out of its distribution and put it, in one step, where the next fetch would find it."""
    folder, _, name = inner.rpartition("/")
    (piece,) = extract(archive, folder, (name,), staging)
    archive.unlink()
    kept = pieces_folder(distribution) / sha256_of(piece)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.replace(piece, kept)
    return kept


def require_room(asset: Asset) -> None:
    """Refuse to begin a download that the disk cannot hold.

    Raises:
      AssetError: less room than the pieces to come, the largest of them once more, and the unpacked files.
    """
    to_come = [part.size for part in asset.parts if not any(pieces_folder(part).glob("*"))]
    # The pieces hold float weights, which hardly compress: unpacked they are about a tenth larger.
    needed = sum(to_come) + 2 * max(to_come, default=0) + int(1.2 * sum(part.size for part in asset.parts))
    free = shutil.disk_usage(cache_dir()).free
    if free < needed:
        raise AssetError(
            f"fetching {asset.name} needs {needed / 1e6:.0f} MB of disk at its height; {cache_dir()} has "
            f"{free / 1e6:.0f} MB. Set {CACHE_VARIABLE} to a folder with room."
        )
