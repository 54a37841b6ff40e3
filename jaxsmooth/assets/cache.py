"""The cache of unpacked assets, and how a cached folder is verified.

Layout below `cache_dir()`: `assets/NAME/` is a finished asset with a manifest of its files; `verified/NAME.json` holds
size, times and inode of each file when its hash was last right, so that a load looks at every file and reads none;
`locks/` holds one lock file per distribution; `staging/` holds work in progress, read by its owner alone; `pieces/`
holds verified pieces of an archive whose fetch is not finished.
"""

import contextlib
import hashlib
import importlib.resources
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import platformdirs
from filelock import AcquireReturnProxy, FileLock, Timeout
from rich.console import Console

from ..errors import AssetError, arguments_checked
from ..files import atomic_write
from ..json_reading import loads
from ..paths import refuse_address
from .registry import REGISTRY, Asset, Distribution, find_asset

CACHE_VARIABLE = "JAXSMOOTH_CACHE"
MANIFEST = ".jaxsmooth.json"
"""The manifest's name beside the unpacked files; no archive has a file of that name."""

State = Literal["cached", "absent", "damaged"]


@arguments_checked
def cache_dir() -> Path:
    """The cache's root: the environment variable JAXSMOOTH_CACHE, else the platform's user cache.

    Returns:
      An absolute path; it need not exist yet.

    Raises:
      StorageError: the variable holds an address (gs://, s3://).
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    refuse_address(chosen or "")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("jaxsmooth")


def asset_folder(asset: Asset) -> Path:
    """Where the asset's files are once it is cached."""
    return cache_dir() / "assets" / asset.name


def pieces_folder(distribution: Distribution) -> Path:
    """Where the piece of an archive that came in this distribution waits for the others."""
    return cache_dir() / "pieces" / distribution.sha256


@arguments_checked
def asset_path(name: str) -> Path:
    """The folder of an asset that is in the cache. Downloads nothing.

    Args:
      name: an asset name.

    Returns:
      The folder: for a model a directory that `load` reads, for a text the folder of its files.

    Raises:
      AssetError: an unknown name, an asset not fetched yet, or a damaged one.
    """
    asset = find_asset(name)
    state, why = inspect(asset)
    if state == "absent":
        raise AssetError(f"{name} is not in the cache ({cache_dir()}): run `jaxsmooth assets fetch {name}`.")
    if state == "damaged":
        raise AssetError(
            f"{asset_folder(asset)} is damaged: {why}. Run `jaxsmooth assets clear {name}`, "
            f"then `jaxsmooth assets fetch {name}`."
        )
    return asset_folder(asset)


@arguments_checked
def assets_table() -> list[tuple[Asset, State]]:
    """Every asset of the registry with its state in the cache, for `jaxsmooth assets list`."""
    return [(asset, inspect(asset)[0]) for asset in REGISTRY.values()]


def inspect(asset: Asset, *, again: bool = False) -> tuple[State, str]:
    """Compare an asset's folder with its manifest: presence, size and hash of every file.

    A file that has not been touched since its hash was last right is not read again.

    Args:
      asset: which.
      again: read and hash every file all the same.

    Returns:
      The state, and for "damaged" what is wrong.
    """
    folder = asset_folder(asset)
    if not folder.is_dir():
        return "absent", ""
    try:
        manifest = loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["source"] != _source(asset):
            return "damaged", "it comes from another release of the package"
        wrong = _first_wrong_file(folder, manifest["files"], _record(asset), again=again)
        if wrong:
            return "damaged", wrong
    except FileNotFoundError as error:
        return "damaged", f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return "damaged", f"{MANIFEST} is unreadable ({error!r})"
    return "cached", ""


def _first_wrong_file(folder: Path, files: dict[str, dict[str, Any]], record: Path, *, again: bool) -> str:
    """What is wrong with the first file that differs from the manifest's `files`; "" if none does."""
    known = {} if again else _read_stamps(record)
    stamps = {}
    for name, entry in files.items():
        status = (folder / name).stat()
        if status.st_size != entry["size"]:
            return f"{name} must have {entry['size']} bytes; got {status.st_size}"
        stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if stamps[name] != known.get(name) and sha256_of(folder / name) != entry["sha256"]:
            return f"{name} must have sha256 {entry['sha256']}, and has not"
    if stamps != known:
        # A cache that may only be read is hashed at every look; that is no reason to refuse it.
        with contextlib.suppress(OSError):
            atomic_write(record, json.dumps(stamps))
    return ""


def _read_stamps(record: Path) -> dict[str, list[int]]:
    try:
        found = loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # every file is hashed
    return found if isinstance(found, dict) else {}


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@arguments_checked
def verify(name: str | None = None) -> tuple[tuple[str, State, str], ...]:
    """Read and hash every file of one cached asset, or of all, and compare with what was fetched.

    Args:
      name: an asset name; None for all that are in the cache.

    Returns:
      (name, state, what is wrong) of each.

    Raises:
      AssetError: an unknown name.
    """
    chosen = list(REGISTRY.values()) if name is None else [find_asset(name)]
    found = tuple((asset.name, *inspect(asset, again=True)) for asset in chosen)
    return tuple(row for row in found if name is not None or row[1] != "absent")


def install(asset: Asset, finished: Path, staging: Path) -> None:
    """Write the manifest of a completely unpacked folder and move it into place, over any damaged one.

    Args:
      asset: which.
      finished: the folder, in the cache's staging folder.
      staging: where the damaged one is moved to, to be removed.
    """
    files = {
        path.relative_to(finished).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(finished.rglob("*"))
        if path.is_file()
    }
    manifest = {"source": _source(asset), "licence": asset.licence, "author": asset.author, "files": files}
    (finished / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _discard(asset_folder(asset), staging)
    asset_folder(asset).parent.mkdir(parents=True, exist_ok=True)
    os.replace(finished, asset_folder(asset))


@arguments_checked
def clear(name: str | None = None) -> tuple[str, ...]:
    """Remove one asset, or every asset, from the cache. Other files in the cache's root are left alone.

    Args:
      name: an asset name; None for all.

    Returns:
      The names of what was there and is gone.

    Raises:
      AssetError: an unknown name, or files that cannot be removed.
    """
    chosen = list(REGISTRY.values()) if name is None else [find_asset(name)]
    present = [asset for asset in chosen if inspect(asset)[0] != "absent"]
    for asset in present:
        with locked_staging(asset.distribution) as staging:
            _discard(asset_folder(asset), staging)
        _record(asset).unlink(missing_ok=True)
    for asset in chosen:
        discard_pieces(asset)
    return tuple(asset.name for asset in present)


def discard_pieces(asset: Asset) -> None:
    """Remove the pieces of an archive: it is unpacked, or unwanted."""
    for part in asset.parts:
        shutil.rmtree(pieces_folder(part), ignore_errors=True)


def added_file(asset: Asset, name: str) -> bytes:
    """A file that this package adds to an asset's own."""
    return (importlib.resources.files(__package__) / "added" / asset.name / name).read_bytes()


@contextlib.contextmanager
def locked_staging(distribution: Distribution, console: Console | None = None) -> Iterator[Path]:
    """An empty private folder in the cache, held under the distribution's lock and removed at the end.

    Args:
      distribution: whose lock; a second process waits until the first is done.
      console: where to say that it waits.

    Raises:
      AssetError: the cache cannot be written to.
    """
    key = f"{distribution.package}-{distribution.version}"
    root = cache_dir() / "staging" / key
    lock = FileLock(cache_dir() / "locks" / f"{key}.lock")
    try:
        (cache_dir() / "locks").mkdir(parents=True, exist_ok=True)
        with _acquire(lock, distribution, console):
            # What a killed process left behind: the lock is ours, so it is nobody's.
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            try:
                yield Path(tempfile.mkdtemp(dir=root))
            finally:
                shutil.rmtree(root, ignore_errors=True)
    except AssetError:
        raise
    except OSError as error:
        raise AssetError(
            f"the cache {cache_dir()} cannot be used: {error}. Set {CACHE_VARIABLE} to a writable folder with room."
        ) from error


def _acquire(lock: FileLock, distribution: Distribution, console: Console | None) -> AcquireReturnProxy:
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        if console is not None:
            console.print(f"waiting for another process that is fetching {distribution.requirement}", highlight=False)
        return lock.acquire()


def _record(asset: Asset) -> Path:
    return cache_dir() / "verified" / f"{asset.name}.json"


def _source(asset: Asset) -> list[str]:
    # A later release of jaxsmooth may pin another file or pick more of it; then the folder is not this asset.
    borrowed = [f"{lender}/{name}" for lender, name in asset.borrowed]
    added = [hashlib.sha256(added_file(asset, name)).hexdigest() for name in asset.added]
    parts = [part.sha256 for part in asset.more_parts]
    return [asset.distribution.sha256, asset.inner, asset.folder, *asset.files, *parts, *borrowed, *added]


def _discard(folder: Path, staging: Path) -> None:
    # Renamed first: whoever looks sees the whole folder or none, never half of it.
    if folder.exists():
        doomed = Path(tempfile.mkdtemp(dir=staging))
        os.replace(folder, doomed / "removed")
        shutil.rmtree(doomed)
