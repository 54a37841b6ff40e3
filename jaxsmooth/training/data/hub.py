"""GLUE, SWAG and SQuAD through the `datasets` library, for machines that are online and have it."""

from typing import Any

from ...errors import DataError
from .benchmarks import GLUE, glue_sentence, swag_choice
from .splits import Parts
from .tasks import SPLITS, Example, Question

_SETS = {"glue": "nyu-mll/glue", "swag": "allenai/swag", "squad": "rajpurkar/squad", "squad2": "rajpurkar/squad_v2"}


def read_hub(name: str) -> Parts:
    """Load a benchmark from the Hugging Face hub.

    Args:
      name: "glue/TASK", "swag", "squad" or "squad2".

    Returns:
      Its official splits.

    Raises:
      DataError: `datasets` is not installed, or it cannot load the data (no network, most often).
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} needs its files: give a directory in the official format, or `pip install datasets` to load it "
            "from the Hugging Face hub."
        ) from error
    family, _, task = name.partition("/")
    configuration = {"glue": task.removesuffix("-mm"), "swag": "regular"}.get(family)
    arguments = (_SETS[family],) if configuration is None else (_SETS[family], configuration)
    try:
        loaded = datasets.load_dataset(*arguments)
    except Exception as error:  # its errors share no class, and most come from the network
        raise DataError(f"`datasets` could not load {'/'.join(arguments)}: {error}. Is this machine online?") from error
    variant = GLUE[task].variant if task else ""
    names = {split: split if split == "train" else f"{split}{variant}" for split in SPLITS}
    present = {split: loaded[name] for split, name in names.items() if name in loaded}
    return Parts({split: [_example(family, task, row) for row in rows] for split, rows in present.items()})


def _example(family: str, task: str, row: dict[str, Any]) -> Example:
    if family.startswith("squad"):
        texts, starts = (tuple(row["answers"][key]) for key in ("text", "answer_start"))
        return Question(row["question"], row["context"], texts, starts, id=row["id"])
    # -1 is a missing label on the hub, for a score as well; no GLUE score is negative.
    label = None if row["label"] is None or row["label"] < 0 else row["label"]
    if family == "swag":
        return swag_choice(row, label, "")
    table = GLUE[task]
    if label is not None:
        label = int(label) if table.classes else float(label)
    return glue_sentence(row, table.hub_texts or table.texts, label, row["idx"])
