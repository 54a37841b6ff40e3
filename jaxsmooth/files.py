"""Writing a file so that a reader sees the old one or the new one, never half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_aside(path: Path, content: str | bytes) -> Path:
    """Writes a file beside its destination and renames it into place.

    Args:
      path: the destination; missing folders are made.
      content: text (written as UTF-8 with plain newlines) or bytes.

    Returns:
      The path.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # mkstemp makes files private; a report is meant to be shared like any other file.
        aside.chmod(0o644)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def write_numbers_and_figure(out: Path, stem: str, numbers: str, draw: Callable[[Path], Path]) -> tuple[Path, Path]:
    """Writes `stem`.json and draws `stem`.png into a folder, made if missing; returns the two paths.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    drawn = draw(Path(out) / f"{stem}.png")
    return write_aside(Path(out) / f"{stem}.json", numbers), drawn


def check_writable(folder: Path) -> None:
    """Refuses, before any work, a folder that could not be made or written to; makes nothing.

    Raises:
      OSError: says which folder is in the way.
    """
    there = Path(folder).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{folder} cannot be a folder: {there} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written: no permission in {there}.")
