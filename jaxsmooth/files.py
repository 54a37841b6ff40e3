"""Atomic writes, the check that a folder can be written to, and strict JSON."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def atomic_write(path: str | Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file so that a reader sees the old content or the new content, never a part of it.

    The content goes to a temporary file in the same folder, which is then renamed. A failure leaves the old file as
    it was and no temporary file.

    Args:
      path: the destination; missing folders are made.
      content: text (written as UTF-8 with plain newlines), bytes, or a function that writes the file whose path it
        is given, such as a library's own `save`. That path has the destination's suffix.

    Returns:
      The path.

    Raises:
      OSError: the folder cannot be made or written to.

    >>> folder = Path(tempfile.mkdtemp())
    >>> atomic_write(folder / "new" / "a.txt", "text").read_text()
    'text'
    >>> atomic_write(folder / "b.txt", lambda temporary: temporary.write_text("written")).read_text()
    'written'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        # mkstemp makes files private; results are meant to be read by others.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def replaced_together(folder: str | Path, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Write several files of one folder as one: those of before stay whole until all new ones are.

    Args:
      folder: where the files go; made if it does not exist. Other files in it stay.
      last: the file without which a reader takes the folder for empty. It is removed before the first new file takes
        its place and comes back last, so files of two generations are never read together.
      stale: files that go where there are no new ones.

    Yields:
      An empty folder beside them, to write the files to. A failure leaves those of before.

    Raises:
      OSError: the folder cannot be made or written to.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replaced_together(folder, "config.json") as new:
    ...     written = [(new / name).write_text(name) for name in ("config.json", "weights")]
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'weights']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new.", dir=folder))
    try:
        yield new
        names = sorted((path.name for path in new.iterdir()), key=lambda name: name == last)
        (folder / last).unlink(missing_ok=True)
        for name in set(stale).difference(names):
            (folder / name).unlink(missing_ok=True)
        for name in names:
            os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_writable(folder: str | Path) -> None:
    """Refuse, before any work, a folder that could not be made or written to; make nothing.

    Args:
      folder: the folder, which need not exist.

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


def strict(tree: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by None.

    Args:
      tree: mappings, lists, tuples and scalars, nested.

    Returns:
      The same tree of new dicts and lists, with strings as keys.

    >>> strict({1: [0.5, float("nan")], "b": (float("inf"), "text")})
    {'1': [0.5, None], 'b': [None, 'text']}
    """
    if isinstance(tree, Mapping):
        return {str(key): strict(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [strict(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def dumps_strict(tree: Any, *, indent: int | None = None) -> str:
    """Write strict JSON: floats to their last bit, null for NaN and infinity, readable as UTF-8.

    Args:
      tree: what `strict` takes.
      indent: spaces of one level; None for one line.

    Returns:
      The text, without a newline at its end.

    >>> dumps_strict({"rate": float("inf"), "name": "d‖H‖"})
    '{"rate": null, "name": "d‖H‖"}'
    """
    return json.dumps(strict(tree), indent=indent, allow_nan=False, ensure_ascii=False)
