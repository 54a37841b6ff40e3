"""One run in a folder at a time: the operating system's own lock on a file, gone with the process that held it."""

import contextlib
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax
import numpy as np
from jax.experimental import multihost_utils

from ...errors import StorageError
from ...files import atomic_write
from ...json_reading import loads

LOCK, HOLDER = ".lock", ".running.json"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder; refuse where another run holds it. All processes of a run must enter together.

    A killed process leaves no lock behind: what is locked is an open file, not the file's existence. Of a run in
    several processes the first holds the folder for all.

    Args:
      folder: of the run; it must exist.

    Raises:
      StorageError: another run holds the folder; says which.
    """
    lock, refusal = None, ""
    if jax.process_index() == 0:
        try:
            lock = _locked(folder)
        except filelock.Timeout:
            refusal = _refusal(folder)
    if _anywhere(bool(refusal)):
        raise StorageError(refusal or f"another run holds {folder}: process 0 says which.")
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):  # the folder may be gone, or its disk
                (folder / HOLDER).unlink(missing_ok=True)
                lock.release()


def _locked(folder: Path) -> filelock.BaseFileLock | None:
    """The lock, held; None on a file system that knows no locks."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise
    except (NotImplementedError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        warnings.warn(f"{folder} is on a file system without locks ({error}): start one run in it only.", stacklevel=3)
        return None
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    try:
        atomic_write(folder / HOLDER, json.dumps(holder) + "\n")
    except BaseException:
        lock.release()
        raise
    return lock


def _refusal(folder: Path) -> str:
    try:
        holder = loads((folder / HOLDER).read_text(encoding="utf-8"))
        who = f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only begun, or was begun by hand
        who = "a process that has not said who it is"
    return f"another run holds {folder}: {who}. Wait for its end, end it, or choose another --out."


def _anywhere(here: bool) -> bool:
    """Whether it is so on any process."""
    if jax.process_count() == 1:
        return here
    return bool(np.any(multihost_utils.process_allgather(np.asarray(here))))
