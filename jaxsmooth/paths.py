"""What a path may be: on this machine, not an address; and names of folders made from names of models."""

import re
from pathlib import Path

from .errors import JaxsmoothError, StorageError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one letter alone is a drive of Windows


def refuse_address(path: str | Path, error: type[JaxsmoothError] = StorageError) -> None:
    """Refuse an address such as gs://bucket/file where a path on this machine is wanted.

    Args:
      path: of a file or folder to read or write.
      error: what to raise.

    Raises:
      JaxsmoothError: an `error`: says how to bring the file here.

    >>> refuse_address("s3://bucket/reviews.csv")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxsmooth.errors.StorageError: s3://bucket/reviews.csv is an address; expected a path on this machine. Copy it ...
    """
    found = _ADDRESS.match(str(path))
    if found:
        scheme = found[0].removesuffix(":/")
        address = re.sub("^[^/]*/+", f"{scheme}://", str(path))  # `Path` makes one slash of two
        way = _WAYS.get(scheme.lower(), "Copy it here first, and name the copy.")
        raise error(f"{address} is an address; expected a path on this machine. {way}")


_CLOUD = "Copy it here first (or back afterwards: `{} cp`), or mount the bucket."
_WAYS = {
    "gs": _CLOUD.format("gcloud storage"),
    "s3": _CLOUD.format("aws s3"),
    "file": "Name the path alone, without file:.",
    "http": "Download it first (`curl -LO ADDRESS`), and name the file.",
}
_WAYS["https"] = _WAYS["http"]


def folder_name(name: str | Path) -> str:
    """What a folder may be called that is for a model, a run or a task: the last two parts of its name.

    Args:
      name: an asset, a hub id or a path.

    Returns:
      One part of a path, never empty.

    >>> folder_name("minilm-l6"), folder_name("google-bert/bert-base-uncased"), folder_name("/data/runs/mine/best/")
    ('minilm-l6', 'google-bert-bert-base-uncased', 'mine-best')
    """
    path = Path(name)
    if not path.name or path.parts[0] in (".", ".."):
        path = path.resolve()
    parts = [part for part in path.parts if part not in (path.anchor, "~", "..")][-2:]
    return re.sub(r"[^\w.@+-]+", "_", "-".join(parts)).strip("._-") or "model"
