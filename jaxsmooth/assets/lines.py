"""Lines of UTF-8, and the name of what is no text: one way to open text for the sentences and for the tables."""

from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ..errors import JaxsmoothError
from ..files import format_name


def utf8_lines(path: Path | Traversable, error: type[JaxsmoothError]) -> Iterator[tuple[int, str]]:
    """The lines of a text file, each with its number.

    A line ends at LF and at nothing else; its end stays on it. A byte-order mark at the start is dropped.

    Args:
      path: the file, which may be a pipe.
      error: what to raise.

    Yields:
      Numbers from 1, and lines.

    Raises:
      JaxsmoothError: an `error`: unreadable, another format by its first bytes, not UTF-8, or a NUL byte.
    """
    offset = 0
    try:
        # Binary: text mode would also end lines at a lone CR, and lose the byte offset of a fault.
        with path.open("rb") as file:
            refuse_other_formats(path, file, error)
            for number, raw in enumerate(file, start=1):
                yield number, _decode(raw, path, number, offset, error)
                offset += len(raw)
    except OSError as fault:
        is_folder = isinstance(path, Path) and path.is_dir()
        what = "is a folder; expected a file" if is_folder else f"cannot be read: {fault.strerror}"
        raise error(f"{path} {what}.") from fault


def refuse_other_formats(path: Path | Traversable, file: Any, error: type[JaxsmoothError]) -> None:
    """Refuse a file whose first bytes are those of something else than text, by its name; nothing is consumed.

    Args:
      path: of the file.
      file: opened, buffered, at its start.
      error: what to raise.
    """
    found = format_name(file.peek(1024)[:1024])
    if found:
        raise error(f"{path} is {found}. Expected text in UTF-8.")


def _decode(raw: bytes, path: Path | Traversable, number: int, offset: int, error: type[JaxsmoothError]) -> str:
    if b"\0" in raw:
        raise error(
            f"{path}, line {number}: byte {offset + raw.index(0)} is NUL. Was the file damaged, or is it binary?"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(
            f"{path}, line {number}: byte {offset + fault.start} (0x{raw[fault.start]:02x}) is not valid UTF-8. "
            "Was the file saved as Latin-1 or UTF-16? Save it as UTF-8."
        ) from fault
    return text.lstrip("\ufeff") if number == 1 else text
