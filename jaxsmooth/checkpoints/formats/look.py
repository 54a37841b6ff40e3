"""What a file is that lies where another was expected, by its first bytes: a message names that, not a parser's woe."""

import os
from pathlib import Path

from ...errors import CheckpointError, JaxsmoothError

_HEAD = 512
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"7z\xbc\xaf'\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
}


def refuse_unfit(path: Path, error: type[JaxsmoothError] = CheckpointError) -> None:
    """Refuse what cannot be the content of any model's file: no file, an empty one, a git-lfs pointer, a web page.

    Args:
      path: of a file that is about to be read.
      error: the exception's class.

    Raises:
      JaxsmoothError: an `error`; the message says what the file is, and what to do.
    """
    if path.is_symlink() and not path.exists():
        raise error(f"{path} is a broken link: {os.readlink(path)} is not there. Was the cache it leads to cleared?")
    if path.is_dir():
        raise error(f"{path} is a folder, where a file was expected.")
    if path.exists() and not path.is_file():
        raise error(f"{path} is a pipe or a device, where a file was expected: reading it could wait for ever.")
    head = _head(path, error)
    if not head:
        raise error(f"{path} is empty, not a whole file. Download it again.")
    if head.startswith(_POINTER):
        raise error(f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder.")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise error(f"{path} is a web page, not the file itself: its download failed. Download it again.")


def archive(path: Path) -> str:
    """What archive a file is, in words; "" for none.

    >>> archive(Path("no such file"))
    ''
    """
    try:
        head = _head(path, CheckpointError)
    except CheckpointError:
        return ""
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((words for magic, words in _ARCHIVES.items() if head.startswith(magic)), "")


def mistaken(path: Path) -> str:
    """What a file is that is not of the format that its name says, as the end of a message; "" where that is unknown.

    >>> mistaken(Path("no such file"))
    ''
    """
    try:
        head = _head(path, CheckpointError)
    except CheckpointError:
        return ""
    if head[8:10] == b'{"' and path.suffix != ".safetensors":
        return " By its content it is a safetensors file: give it the name model.safetensors."
    if archive(path) == "a zip archive" and b"data.pkl" in head:
        if path.suffix == ".bin":
            return ""
        return " By its content it is a file of torch: give it the name pytorch_model.bin."
    return f" By its content it is {archive(path)}: unpack it." if archive(path) else ""


def _head(path: Path, error: type[JaxsmoothError]) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except PermissionError as why:
        raise error(f"{path} may not be read: no permission. Change its mode (chmod u+r).") from why
    except OSError as why:
        raise error(f"{path} cannot be read: {why}.") from why
