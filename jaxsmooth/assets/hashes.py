"""Whether a cached file still holds what was fetched: hashed once, and again only when the file has changed.

What was seen of each file when its hash was last right (size, time of change, inode) is kept in
`cache_dir()/verified/NAME.json`, so that a load costs a look at each file, not a read of it.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

Stamps = dict[str, list[int]]


def wrong_file(folder: Path, files: dict[str, dict[str, Any]], record: Path, *, again: bool = False) -> str:
    """The first file that is not what the manifest says.

    Args:
      folder: where the files lie.
      files: name -> {"size", "sha256"}.
      record: the file with the stamps; made, or left out where it cannot be written.
      again: hash every file, whatever was recorded.

    Returns:
      What is wrong, in words; "" if nothing is.

    Raises:
      FileNotFoundError: a file is missing.
      KeyError, TypeError: `files` is no such table.
    """
    known = {} if again else read_stamps(record)
    stamps: Stamps = {}
    for name, entry in files.items():
        status = (folder / name).stat()
        if status.st_size != entry["size"]:
            return f"{name} must have {entry['size']} bytes; got {status.st_size}"
        stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if stamps[name] != known.get(name) and sha256_of(folder / name) != entry["sha256"]:
            return f"{name} must have sha256 {entry['sha256']}, and has not"
    if stamps != known:
        _write(record, stamps)
    return ""


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_stamps(record: Path) -> Stamps:
    """What was recorded; nothing if that cannot be read, so that everything is hashed."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(record: Path, stamps: Stamps) -> None:
    # A cache that may only be read is hashed at every look; that is no reason to refuse it.
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False, encoding="utf-8") as aside:
            json.dump(stamps, aside)
        os.replace(aside.name, record)
