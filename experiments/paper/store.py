"""The results of a grid: one JSON file, one entry for each run that has ended, put in place whole."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from jaxsmooth.files import atomic_write, dumps_strict


class StoreError(ValueError):
    """A file of results that cannot be read or gone on with."""


class Store:
    """Entries by key, in the order in which they came; each holds the "settings" of its run.

    The file is read anew before it is written, under a lock beside it, so two programs may fill one file.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "results.json", command="none")
    >>> store.add("a", {"settings": {"seed": 0}, "score": 0.5})
    >>> store.entry("a", {"seed": 0})["score"], store.entry("b", {"seed": 1})
    (0.5, None)
    """

    def __init__(self, path: Path, *, command: str, also: tuple[Path, ...] = ()) -> None:
        """Nothing is read or written yet.

        Args:
          path: the file, which need not exist.
          command: what makes it, for the reader.
          also: files of other grids, whose entries serve where the settings are the same.
        """
        self.path, self.command, self.also = path, command, also

    def entries(self) -> dict[str, dict[str, Any]]:
        """What the file holds.

        Raises:
          StoreError: it cannot be read, so that nothing would be lost by writing it anew unasked.
        """
        return _read(self.path)

    def entry(self, key: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry of a key, or of another grid's run with the same settings; None if there is none.

        Raises:
          StoreError: an unreadable file, or a run of that key with other settings.
        """
        found = self.entries().get(key)
        if found is not None:
            differing = _differing(found["settings"], settings)
            if differing:
                raise StoreError(f"{self.path} holds {key!r} with other settings: {differing}. Move the file away.")
            return found
        for path in self.also:
            for other, entry in _read(path).items():
                if not _differing(entry["settings"], settings):
                    return {**entry, "taken_from": f"{path.stem}: {other}"}
        return None

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Write an entry, and all that were there.

        Raises:
          StoreError: an unreadable file, or the key is there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.path.with_name(f".{self.path.stem}.lock")):
            entries = self.entries()
            if key in entries:
                raise StoreError(f"{self.path} has an entry {key!r} already.")
            lines = [f"{dumps_strict(k)}: {dumps_strict(v)}" for k, v in {**entries, key: entry}.items()]
            body = ",\n".join(lines)
            atomic_write(self.path, f'{{"command": {dumps_strict(self.command)}, "entries": {{\n{body}\n}}}}\n')


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    state = path.stat()
    return _parsed(path, state.st_ino, state.st_mtime_ns, state.st_size)  # every write makes a new file


@functools.lru_cache(8)
def _parsed(path: Path, *version: int) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["entries"]
        if not all(isinstance(entry["settings"], dict) for entry in entries.values()):
            raise TypeError("an entry without settings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is no whole file of results ({error!r:.100}); nothing was written. Mend it or move "
                         "it away.") from error  # fmt: skip
    return entries


def _differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
    return ", ".join(f"{name}={there.get(name)!r}, wanted {wanted.get(name)!r}" for name in sorted(names))
