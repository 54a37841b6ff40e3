"""Which folder a name means, as far as the name and the disk tell: home and environment, caches, hub ids."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import CheckpointError, JaxsmoothError, did_you_mean
from ...files import spelled_out
from ..formats import refuse_unfit, refuse_unreadable
from .sentence import encoder_folder

_SIZES = ("base", "large", "xlarge", "xxlarge")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CANONICAL = {
    "google-bert": "bert-base-uncased bert-base-cased bert-large-uncased bert-large-cased bert-base-chinese "
    "bert-base-multilingual-uncased bert-base-multilingual-cased bert-base-german-cased bert-base-german-dbmdz-cased "
    "bert-base-german-dbmdz-uncased bert-base-cased-finetuned-mrpc bert-large-uncased-whole-word-masking "
    "bert-large-cased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad "
    "bert-large-cased-whole-word-masking-finetuned-squad",
    "FacebookAI": "roberta-base roberta-large roberta-large-mnli xlm-roberta-base xlm-roberta-large "
    "xlm-roberta-large-finetuned-conll02-dutch xlm-roberta-large-finetuned-conll02-spanish "
    "xlm-roberta-large-finetuned-conll03-english xlm-roberta-large-finetuned-conll03-german",
    "distilbert": "distilbert-base-uncased distilbert-base-cased distilbert-base-german-cased "
    "distilbert-base-multilingual-cased distilbert-base-uncased-distilled-squad distilbert-base-cased-distilled-squad "
    "distilbert-base-uncased-finetuned-sst-2-english distilroberta-base distilgpt2",
    "albert": " ".join(f"albert-{size}-v{version}" for version in (1, 2) for size in _SIZES),
    "almanach": "camembert-base",
    "openai-community": "gpt2 gpt2-medium gpt2-large gpt2-xl roberta-base-openai-detector "
    "roberta-large-openai-detector",
}
CANONICAL = {name: f"{owner}/{name}" for owner, names in _CANONICAL.items() for name in names.split()}
"""The hub's ids from before ids had owners -> today's, of the families that are read here. The hub redirects them."""


@contextlib.contextmanager
def reading(name: object) -> Iterator[None]:
    """What the disk refuses while a model is read is a `CheckpointError`, as all else that is wrong with its files.

    Args:
      name: what the caller calls the model.

    Raises:
      CheckpointError: says what the system said.

    >>> with reading("mine"):
    ...     raise FileNotFoundError("config.json")
    Traceback (most recent call last):
    jaxsmooth.errors.CheckpointError: 'mine' cannot be read: config.json. Was a file of it, or the folder that this \
process is in, removed or locked meanwhile?
    """
    try:
        yield
    except JaxsmoothError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{str(name)!r} cannot be read: {error}. Was a file of it, or the folder that this process is in, removed "
            "or locked meanwhile?"
        ) from error


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


def refuse_no_hub_id(name: str, models: Sequence[str]) -> None:
    """Refuse a name that is nothing here and that no model on the hub can have.

    Args:
      name: no folder's and no asset's.
      models: the names of the model assets, for the message.

    Raises:
      CheckpointError: says what a model may be called.
    """
    place = spelled_out(name)
    if not _HUB_ID.fullmatch(name):
        # sentence-transformers takes its own models without an owner
        own = re.match("(all|paraphrase|multi-qa|msmarco)-", name) and f" Did you mean 'sentence-transformers/{name}'?"
        hint = own or did_you_mean(name, (*models, *CANONICAL))
        if "://" in name:
            hint = (
                " Name the path alone."
                if name.startswith("file:")
                else " Of a model's web address, name the last two parts."
                if name.startswith("http")
                else " A model is read from this machine: copy its folder here first."
            )
        meant = "" if place == name else f" (it means {place!r})"
        raise CheckpointError(
            f"{name!r} is no directory here{meant}, no model asset ({', '.join(models)}) and no hub id (owner/name)."
            f"{hint}"
        )
    owner, _, model = name.partition("/")
    if os.path.isdir(owner):
        raise CheckpointError(
            f"{name!r} is no directory here: the folder {owner!r} has no {model!r} in it. To fetch a hub model of that "
            "name all the same, call from another folder."
        )
