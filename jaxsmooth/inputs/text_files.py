"""Small files of a model's directory: bytes, UTF-8 text, and JSON objects, each refused by its name when damaged."""

from pathlib import Path
from typing import Any

from ..errors import TextError
from ..files import format_name
from ..json_reading import loads

_POINTER = b"version https://git-lfs.github.com/spec/"


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      TextError: it cannot be read, or Git LFS left a pointer in its place.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}.") from error
    if content.startswith(_POINTER):
        raise TextError(f"{path} is a Git LFS pointer, not the file itself. Fetch it with `git lfs pull`.")
    return content


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, without the byte order mark that some editors put first.

    Raises:
      TextError: it cannot be read, or is not UTF-8.
    """
    try:
        return (content := read_bytes(path)).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = format_name(content[:512])
        why = f"It is {what}." if what else "Is the file corrupt?"
        raise TextError(f"{path}: byte {error.start} is not valid UTF-8. {why}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
      TextError: it cannot be read, or holds something else.
    """
    text = read_text(path)
    try:
        content = loads(text)
    except ValueError as error:
        raise TextError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise TextError(f"{path} must hold one JSON object; got {type(content).__name__}.")
    return content


def read_object_if_there(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds, {} when there is no such file; refuses as `read_object`."""
    return read_object(path) if path.exists() else {}
