"""The index of a checkpoint in several files, as transformers writes it for safetensors and for torch."""

from pathlib import Path

from ...errors import CheckpointError
from ...json_reading import loads
from .look import refuse_unfit


def shards_of(index: Path) -> list[Path]:
    """The files that an index names.

    Args:
      index: JSON with a `weight_map`, tensor -> file.

    Returns:
      The shards, in the order of their names; all are there.

    Raises:
      CheckpointError: a damaged index, one that names what is not there, or files of another folder.
    """
    refuse_unfit(index)
    try:
        shards = set(loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards (JSON with a weight_map): {error!r}") from error
    # A shard must be a plain name: an index cannot point outside its own directory.
    strangers = [name for name in shards if not _is_plain_name(name)]
    if strangers or not shards:
        raise CheckpointError(
            f"{index}: weight_map must name files of its own directory; got {sorted(map(str, shards))[:3]}."
        )
    absent = sorted(name for name in shards if not (index.parent / name).is_file())
    if absent:
        more = f", and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{index.parent / absent[0]} is missing, though {index.name} names it{more}.")
    return [index.parent / name for name in sorted(shards)]


def _is_plain_name(name: object) -> bool:
    if not isinstance(name, str) or Path(name).name != name or "\\" in name:
        return False
    # Asked for a name that no file can have, a file system raises instead of answering.
    return name.isprintable() and len(name.encode(errors="replace")) <= 255
