"""Atomic writes, checks of folder and room, strict JSON, and what a file is by its first bytes."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import OptionError, StorageError, arguments_checked
from .paths import refuse_address


def atomic_write(path: str | Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file so that a reader sees the old content or the new content, never a part of it.

    The content goes to a temporary file in the same folder, which is then renamed. A failure leaves the old file as
    it was and no temporary file.

    Args:
      path: the destination, which is `spelled_out`; missing folders are made.
      content: text (written as UTF-8 with plain newlines), bytes, or a function that writes the file whose path it
        is given, such as a library's own `save`. That path has the destination's suffix.

    Returns:
      The path.

    Raises:
      StorageError: the disk has no room for the file, or the path is an address (gs://, s3://).
      OSError: the folder cannot be made or written to.

    >>> folder = Path(tempfile.mkdtemp())
    >>> atomic_write(folder / "new" / "a.txt", "text").read_text()
    'text'
    >>> atomic_write(folder / "b.txt", lambda temporary: temporary.write_text("written")).read_text()
    'written'
    """
    refuse_address(path)
    path = Path(spelled_out(path))
    wanted: int | None = None
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            # A file's name may hold bytes that are not UTF-8; in JSON this writes the escapes that JSON has for them.
            data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            wanted = len(data)
            temporary.write_bytes(data)
        # mkstemp makes files private; results are meant to be read by others.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except Exception as error:  # a library's own `save` says in its own way that the disk is full
        if (full := storage_fault(error, path, wanted)) is not None:
            raise full from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


_FULL = {
    errno.ENOSPC: "there is no room left",
    errno.EDQUOT: "the quota there is used up",
    errno.EFBIG: "the file is larger than is allowed there (ulimit -f)",
}
_ERRNO = re.compile(r"\bos[_ ]error(?:_code)?[ =:]*'?(\d+)'?|\[Errno (\d+)\]", re.IGNORECASE)


def storage_fault(error: BaseException, path: str | Path, wanted: int | None = None) -> StorageError | None:
    """What to say of a write that failed for want of room; None where it failed for another reason.

    Args:
      error: what was raised: an OSError, or a library's own exception that has the system's error in its text.
      path: what was being written.
      wanted: its bytes, where they are known.

    Returns:
      An error that names the disk, what was wanted and what is free.

    >>> print(storage_fault(OSError(errno.EDQUOT, "Disk quota exceeded"), "/a.json", 2_000_000))  # doctest: +ELLIPSIS
    /a.json could not be written: the quota there is used up. The disk is that of /; 2.0 MB wanted, ... MB free.
    """
    code = getattr(error, "errno", None)
    if code is None and (found := _ERRNO.search(str(error))):
        code = int(found[1] or found[2])
    if code not in _FULL or isinstance(error, StorageError):
        return None
    return StorageError(f"{path} could not be written: {_FULL[code]}. {_disk(path, wanted)}")


def require_room(path: str | Path, wanted: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
      path: what is to be written; it need not exist.
      wanted: its bytes.

    Raises:
      StorageError: names the disk, what is wanted and what is free.
    """
    if shutil.disk_usage(_existing(path)).free < wanted:
        raise StorageError(f"{path} cannot be written: there is no room for it. {_disk(path, wanted)}")


def _disk(path: str | Path, wanted: int | None) -> str:
    there = _existing(path)
    free = shutil.disk_usage(there).free
    mount = there.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    want = "" if wanted is None else f"{_megabytes(wanted)} wanted, "
    return f"The disk is that of {mount}; {want}{_megabytes(free)} free."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.{1 if size >= 1e5 else 3}f} MB"


def _existing(path: str | Path) -> Path:
    """The path, or the nearest folder above it that there is."""
    there = Path(spelled_out(path)).absolute()
    while not os.path.lexists(there):
        there = there.parent
    return there


@contextlib.contextmanager
def replaced_together(folder: str | Path, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Write several files of one folder as one: those of before stay whole until all new ones are.

    Args:
      folder: where the files go, `spelled_out`; made if it does not exist. Other files in it stay.
      last: the file without which a reader takes the folder for empty. It is removed before the first new file takes
        its place and comes back last, so files of two generations are never read together; nor are those of two that
        write here at once, where the system can lock a folder.
      stale: files that go where there are no new ones.

    Yields:
      An empty folder beside them, to write the files to. A failure leaves those of before.

    Raises:
      StorageError: the disk has no room for the files.
      OSError: the folder cannot be made or written to.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replaced_together(folder, "config.json") as new:
    ...     written = [(new / name).write_text(name) for name in ("config.json", "weights")]
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'weights']
    """
    folder = Path(spelled_out(folder))
    new: Path | None = None
    try:
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new.", dir=folder))
        yield new
        with _alone(folder):
            names = sorted((path.name for path in new.iterdir()), key=lambda name: name == last)
            (folder / last).unlink(missing_ok=True)
            for name in set(stale).difference(names):
                (folder / name).unlink(missing_ok=True)
            for name in names:
                (new / name).chmod(0o644)  # as `atomic_write`; safetensors makes its files private
                os.replace(new / name, folder / name)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error  # of a file that was to come in here
        if cause is not None and (full := storage_fault(cause, folder)) is not None:
            raise full from cause
        raise
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock, which leaves no file there; not on systems or disks without one."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def as_path(name: str, value: Any) -> Path:
    """A path that was given as an argument.

    Args:
      name: of the argument, for the message.
      value: a string or a path.

    Raises:
      OptionError: something else.

    >>> as_path("out", 3)
    Traceback (most recent call last):
    jaxsmooth.errors.OptionError: out must be a path; got 3.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise OptionError(f"{name} must be a path; got {value!r:.80}.")
    return Path(value)


def spelled_out(name: str | Path) -> str:
    """A path with "~" and variables of the environment filled in, unless there is a file of that very name.

    >>> spelled_out("~") == os.path.expanduser("~")
    True
    """
    return str(name) if os.path.lexists(name) else os.path.expanduser(os.path.expandvars(name))


@arguments_checked
def check_writable(folder: str | Path) -> None:
    """Refuse, before any work, a folder that could not be made or written to; make nothing.

    Args:
      folder: the folder, which need not exist.

    Raises:
      StorageError: an address (gs://, s3://).
      OSError: says which folder is in the way.
    """
    refuse_address(folder)
    there = _existing(folder)
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


def format_name(start: bytes) -> str:
    r"""Say what a file is that should have been text, and what to do about it.

    Args:
      start: its first bytes, some hundred of them.

    Returns:
      Words that fit after "is"; "" for what may be text.

    >>> format_name(b"\x1f\x8b\x08\x00"), format_name(b"A plain sentence.")
    ('compressed with gzip: unpack it first, `gunzip FILE`', '')
    """
    for magic, name in _FORMATS.items():
        if start.startswith(magic):
            return _zip_name(start) if name == _ZIP else name
    if start[4:10] == b"1AY&SY":
        return "compressed with bzip2: unpack it first, `bunzip2 FILE`"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first, `tar -xf FILE`"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps saved in place of the file"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<?xml"):
        return "XML: write its texts one a line, or as a table"
    # Of UTF-16 without a mark every other byte of Western text is 0; a text may hold a NUL without being that.
    low, high = sorted((start[::2].count(0), start[1::2].count(0)))
    return _UTF16 if high > len(start) // 4 > 20 * low else ""


def _zip_name(start: bytes) -> str:
    if b"[Content_Types].xml" in start or b"mimetypeapplication/vnd.oasis" in start:
        return "an Office document (Excel, Word ...): save its table as CSV in UTF-8, or its text as plain text"
    return _ZIP


_UTF16 = "UTF-16: save it as UTF-8, `iconv -f UTF-16 -t UTF-8 FILE`"
_ZIP = "a zip archive: unpack it first, `unzip FILE`"
# First bytes -> what they are of, and the way out.
_FORMATS = {
    b"\x1f\x8b": "compressed with gzip: unpack it first, `gunzip FILE`",
    b"\xfd7zXZ\0": "compressed with xz: unpack it first, `unxz FILE`",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first, `unzstd FILE`",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!\x1a\x07": "a RAR archive: unpack it first",
    b"PK\x03\x04": _ZIP,
    b"\xd0\xcf\x11\xe0": "an Office document of the old kind (.xls, .doc): save it as CSV or as plain text",
    b"%PDF-": "a PDF: extract its text first, `pdftotext FILE`",
    b"-DOCSTART-": "CoNLL, one token a line: write its sentences one a line",
    b"# sent_id": "CoNLL, one token a line: write its sentences one a line",
    b"# newdoc": "CoNLL, one token a line: write its sentences one a line",
    b"{\\rtf": "rich text (RTF): save it as plain text",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: fetch that, `git lfs pull`",
    b"PAR1\x15": "a parquet table: give it a name that ends in .parquet",
    b"ARROW1\0": "an Arrow (feather) table: save it as .parquet",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF\r\n": "an HDF5 file",
    b"SQLite format 3\0": "an SQLite database: export its table as CSV",
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}
