"""Which folder a name means, as far as the name and the disk tell: home and environment, caches, hub ids."""

import os
import re
from pathlib import Path

from ...errors import CheckpointError
from ...files import spelled_out
from ..formats import refuse_unfit, refuse_unreadable
from .sentence import encoder_folder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OWNERS = {
    "bert-": "google-bert",
    "(xlm-)?roberta-": "FacebookAI",
    "distilbert-": "distilbert",
    "albert-": "albert",
    "camembert-": "almanach",
    "(all|paraphrase|multi-qa|msmarco)-": "sentence-transformers",
    "gpt2": "openai-community",
}
"""Who publishes today the models that were once called without an owner, by how their names begin."""


def local_folder(name: str | Path) -> Path | None:
    """The folder of a model on this disk, or None where there is nothing of that name.

    "~" and variables of the environment are filled in where no file has that very name. Of a folder of the hub's cache
    it is the snapshot, of one of sentence-transformers the encoder's folder.

    Args:
      name: a path, or anything else that a model is called.

    Returns:
      A folder, which exists.

    Raises:
      CheckpointError: a file, a broken link, a folder that may not be read, or whose weights are of other kinds.

    >>> local_folder("no such folder")
    """
    place = spelled_out(name)
    refuse_unreadable(place)
    if os.path.isdir(place):
        return model_in(Path(place))
    if os.path.lexists(place):
        refuse_unfit(Path(place))  # a link that leads nowhere
    return None


def model_in(folder: Path) -> Path:
    """The folder itself, or the one in it that holds the encoder.

    Raises:
      CheckpointError: as `local_folder`.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise CheckpointError(f"{folder} may not be read: no permission. Change its mode (chmod u+rx).")
    if (folder / "snapshots").is_dir() and not (folder / "config.json").exists():
        folder = _snapshot(folder)
    found = encoder_folder(folder)
    if found != folder:
        refuse_unreadable(str(found))
    return found


def _snapshot(folder: Path) -> Path:
    """The snapshot that a folder of the hub's cache (`models--owner--name`) calls main, or its only one."""
    there = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs" / "main"
    if main.is_file():
        named = folder / "snapshots" / main.read_text(encoding="utf-8", errors="replace").strip()
        there = [named] if named in there else there
    if len(there) != 1:
        found = ", ".join(path.name for path in there) or "none"
        raise CheckpointError(f"{folder} is a folder of the hub's cache; name one of its snapshots: {found}.")
    return there[0]


def refuse_no_hub_id(name: str, models: str) -> None:
    """Refuse a name that is nothing here and that no model on the hub can have.

    Args:
      name: no folder's and no asset's.
      models: the names of the model assets, for the message.

    Raises:
      CheckpointError: says what a model may be called.
    """
    place = spelled_out(name)
    if not _HUB_ID.fullmatch(name):
        owner = next((owner for start, owner in _OWNERS.items() if re.fullmatch(f"{start}[-\\w.]*", name)), None)
        hint = f" Did you mean '{owner}/{name}'?" if owner else ""
        if "://" in name:
            hint = (
                " Name the path alone."
                if name.startswith("file:")
                else " Of a model's web address, name the last two parts."
            )
        meant = "" if place == name else f" (it means {place!r})"
        raise CheckpointError(
            f"{name!r} is no directory here{meant}, no model asset ({models}) and no hub id (owner/name).{hint}"
        )
    owner, _, model = name.partition("/")
    if os.path.isdir(owner):
        raise CheckpointError(
            f"{name!r} is no directory here: the folder {owner!r} has no {model!r} in it. To fetch a hub model of that "
            "name all the same, call from another folder."
        )
